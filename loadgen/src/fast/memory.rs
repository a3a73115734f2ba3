//! Owns the memory that the kernel and this process share: the buffers that a ring receives into, the promise behind each
//! submission, and the messages in which the kernel says when bytes arrived. All unsafe code of the crate is here. Must
//! not know what the bytes are.
#![expect(
    unsafe_code,
    reason = "io_uring reads and writes our memory, and no safe call asks when bytes arrived: of a saturated closed load epoll costs 1.27 times the CPU a request, of a slow open one a second wake a request 1.6 times"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, opcode, squeue};

/// The buffers' name within the ring.
pub(super) const GROUP: u16 = 0;
/// How many; a power of two.
const COUNT: u16 = 128;
/// Length of each, in bytes.
const SIZE: usize = 16 * 1024;
const PAGE: usize = 4096;
/// Of a stamped receive: `struct io_uring_recvmsg_out`, four 32-bit numbers (`io_uring_prep_recvmsg_multishot(3)`).
const PREFIX: usize = 16;
/// What follows it: one control message, a `struct cmsghdr` and a `struct timespec`.
const CONTROL: usize = 32;

/// Stamps are read as a 64-bit kernel writes them; elsewhere they have another form.
pub(super) const STAMPS: bool = cfg!(target_pointer_width = "64");

/// Asks the kernel to say of each receive when its last byte arrived (`SO_TIMESTAMPNS`, `socket(7)`).
pub(super) fn stamp(socket: &impl AsRawFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is a C int that lives until the call returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Receives what is there, and when its last byte arrived, since 1970, if the socket was told to say so (see [`stamp`]).
pub(super) fn receive(
    socket: &impl AsRawFd,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<Duration>)> {
    let mut control = Control([0; CONTROL]);
    let mut bytes = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut message = empty();
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL as _;
    // SAFETY: the message points to `buffer` and `control`, which this call alone uses, with their lengths.
    let n = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    Ok((n, time(&control.0)))
}

/// A message without address, control message and bytes.
fn empty() -> libc::msghdr {
    // SAFETY: of a C struct of numbers and pointers, all zeroes are a value.
    unsafe { std::mem::zeroed() }
}

/// A control message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// The time in a control message that has one.
fn time(message: &[u8]) -> Option<Duration> {
    let number = |at: usize| {
        let bytes = message.get(at..at + 8).and_then(|b| b.try_into().ok());
        bytes.map(i64::from_ne_bytes)
    };
    // The length of a 64-bit `struct cmsghdr` with its value, then level and type.
    let kind = i64::from(libc::SO_TIMESTAMPNS) << 32 | i64::from(libc::SOL_SOCKET);
    let kind = if cfg!(target_endian = "big") {
        kind.rotate_left(32)
    } else {
        kind
    };
    let known = number(0) == Some(CONTROL as i64) && number(8) == Some(kind);
    let (seconds, ns) = number(16).zip(number(24))?;
    (known && seconds > 0 && (0..1_000_000_000).contains(&ns))
        .then(|| Duration::new(seconds.unsigned_abs(), ns as u32))
}

/// Puts an entry into the submission queue, which has room.
pub(super) fn push(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<()> {
    // SAFETY: entries point to nothing (polls, receives into registered buffers), to the message of `Buffers`, which
    // outlives the ring, or, sends, to the heap of a socket's `out`, which is neither changed nor freed before their
    // completion: `Uring::send` and `Uring::sent` touch it only while the socket is not busy, `Uring::close` keeps it in
    // `closing` while anything is pending, and `Drop` leaks it when the kernel does not answer. The descriptors are owned
    // by the same sockets.
    unsafe { ring.submission().push(entry) }.map_err(|_| io::ErrorKind::WouldBlock.into())
}

/// Buffers that the kernel takes as it needs them, and the ring through which it gets them back.
pub(super) struct Buffers {
    /// As it was allocated, and from where it is aligned.
    whole: NonNull<u8>,
    memory: NonNull<u8>,
    /// Where the next buffer is put in the ring; only its lowest bits count.
    tail: u16,
    leaked: bool,
    /// What a stamped receive asks for: no address, one control message.
    message: Box<libc::msghdr>,
}

/// How long ago that was.
pub(super) fn age(at: Duration) -> Option<Duration> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    now.checked_sub(at)
}

/// A stamped receive, as it lies in a buffer.
pub(super) struct Stamped {
    /// Where its bytes begin.
    pub(super) start: usize,
    /// When the last of them arrived, since 1970, if the kernel says so.
    pub(super) at: Option<Duration>,
}

impl Stamped {
    /// Reads what precedes the bytes of a receive.
    pub(super) fn read(buffer: &[u8]) -> Stamped {
        Stamped {
            start: PREFIX + CONTROL,
            at: buffer.get(PREFIX..PREFIX + CONTROL).and_then(time),
        }
    }
}

impl Buffers {
    /// A page more than is needed, in which it is aligned: of memory without a wish the allocator knows that it is zero and
    /// touches none, so that only what the kernel fills is ever in RAM.
    fn layout() -> Layout {
        let ring = usize::from(COUNT) * size_of::<BufRingEntry>();
        let bytes = ring.next_multiple_of(PAGE) + usize::from(COUNT) * SIZE;
        Layout::from_size_align(bytes + PAGE, 16).expect("constants that make a layout")
    }

    /// Allocates them and tells the kernel.
    pub(super) fn register(ring: &IoUring) -> io::Result<Buffers> {
        let layout = Buffers::layout();
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(whole) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        // SAFETY: the layout has a page for it.
        let memory = unsafe { whole.add(whole.as_ptr().align_offset(PAGE)) };
        let mut buffers = Buffers {
            whole,
            memory,
            tail: 0,
            leaked: false,
            message: Box::new(empty()),
        };
        buffers.message.msg_controllen = CONTROL as _;
        // SAFETY: the memory is page-aligned, holds COUNT entries, and outlives the ring: `Uring` drops the ring first.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                memory.as_ptr() as u64,
                COUNT,
                GROUP,
                0,
            )?;
        }
        for buffer in 0..COUNT {
            buffers.give_back(buffer);
        }
        Ok(buffers)
    }

    /// A receive that stays armed and says when bytes arrived.
    pub(super) fn stamped(&self, socket: Fd) -> squeue::Entry {
        opcode::RecvMsgMulti::new(socket, &raw const *self.message, GROUP).build()
    }

    fn start(&self, buffer: u16) -> *mut u8 {
        let ring = usize::from(COUNT) * size_of::<BufRingEntry>();
        let at = ring.next_multiple_of(PAGE) + usize::from(buffer % COUNT) * SIZE;
        // SAFETY: within the allocation, by the layout.
        unsafe { self.memory.as_ptr().add(at) }
    }

    /// What the kernel put into a buffer that it has handed over.
    pub(super) fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        // SAFETY: within the allocation, initialised (zeroed, then written by the kernel), and the kernel writes to it
        // again only after `give_back`, which borrows `self` for change.
        unsafe { std::slice::from_raw_parts(self.start(buffer), len.min(SIZE)) }
    }

    /// Lets the kernel fill it again.
    pub(super) fn give_back(&mut self, buffer: u16) {
        let address = self.start(buffer) as u64;
        let base = self.memory.as_ptr().cast::<BufRingEntry>();
        // SAFETY: the entry lies within the ring; the kernel reads it only once the tail has passed it. The tail is an
        // aligned u16 in the first entry's reserved field, which the setters leave alone.
        unsafe {
            let entry = &mut *base.add(usize::from(self.tail % COUNT));
            entry.set_addr(address);
            entry.set_len(SIZE as u32);
            entry.set_bid(buffer);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(base).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Never frees the memory: the kernel may still write to it.
    pub(super) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: allocated with the same layout, and no operation that could write to it is left.
            unsafe { dealloc(self.whole.as_ptr(), Buffers::layout()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (here, listener.accept().unwrap().0)
    }

    /// As `MSG_DONTWAIT` has it: loopback delivers within the peer's call, but not on every kernel.
    fn received(socket: &TcpStream) -> (Vec<u8>, Option<Duration>) {
        let mut buffer = [0; 64];
        loop {
            match receive(socket, &mut buffer) {
                Ok((n, at)) => return (buffer[..n].to_vec(), at),
                Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
            }
        }
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn a_stamped_socket_says_when_bytes_arrived() {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let (here, mut there) = pair();
        there.write_all(b"unstamped").unwrap();
        assert_eq!(received(&here), (b"unstamped".to_vec(), None));
        stamp(&here).unwrap();
        // The kernel begins to stamp a moment after the first socket of the machine has asked for it.
        let (before, at) = (0..10_000)
            .find_map(|_| {
                let before = now();
                there.write_all(b"stamped").unwrap();
                let (bytes, at) = received(&here);
                assert_eq!(bytes, b"stamped");
                std::thread::yield_now();
                at.map(|at| (before, at))
            })
            .expect("a stamp");
        assert!((before..=now()).contains(&at), "{before:?} {at:?}");
        assert!(age(at).unwrap() <= now() - before);
        assert_eq!(age(now() + Duration::from_secs(60)), None);
        drop(there);
        assert_eq!(received(&here), (Vec::new(), None));
    }

    #[test]
    fn a_control_message_of_another_kind_has_no_time() {
        let message = |length: i64, kind: i32, seconds: i64, ns: i64| {
            let mut all = length.to_ne_bytes().to_vec();
            all.extend(libc::SOL_SOCKET.to_ne_bytes());
            all.extend(kind.to_ne_bytes());
            all.extend(seconds.to_ne_bytes());
            all.extend(ns.to_ne_bytes());
            all
        };
        let good = message(32, libc::SO_TIMESTAMPNS, 5, 7);
        assert_eq!(time(&good), Some(Duration::new(5, 7)));
        for bad in [
            message(24, libc::SO_TIMESTAMPNS, 5, 7),
            message(32, libc::SO_TIMESTAMP, 5, 7),
            message(32, libc::SO_TIMESTAMPNS, 0, 7),
            message(32, libc::SO_TIMESTAMPNS, 5, 1_000_000_000),
            message(32, libc::SO_TIMESTAMPNS, 5, -1),
            good[..31].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(time(&bad), None, "{bad:?}");
        }
    }
}
