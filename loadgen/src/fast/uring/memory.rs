//! Owns the memory that the kernel and this process share beside the ring itself: the buffers it receives into, and the
//! promise behind each submission, and how the kernel says when bytes arrived. All unsafe code of the crate is here.
#![expect(
    unsafe_code,
    reason = "io_uring reads and writes our memory; measured beside it, epoll costs 1.27 times the CPU a request"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

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

/// Puts an entry into the submission queue, which has room.
pub(super) fn push(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<()> {
    // SAFETY: entries point to nothing (polls, receives into registered buffers), to the message of `Buffers`, which
    // outlives the ring, or, sends, to the heap of a socket's
    // `out`, which is neither changed nor freed before their completion: `Uring::send` and `Uring::sent` touch it
    // only while the socket is not busy, `Uring::close` keeps it in `closing` while anything is pending, and `Drop`
    // leaks it when the kernel does not answer. The descriptors are owned by the same sockets.
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
        let number = |at: usize| {
            let bytes = buffer.get(at..at + 8).and_then(|b| b.try_into().ok());
            bytes.map(i64::from_ne_bytes)
        };
        // The length of a 64-bit `struct cmsghdr` with its value, then level and type.
        let kind = i64::from(libc::SO_TIMESTAMPNS) << 32 | i64::from(libc::SOL_SOCKET);
        let big = kind.rotate_left(32);
        let known = number(PREFIX) == Some(CONTROL as i64)
            && number(PREFIX + 8)
                == Some(if cfg!(target_endian = "big") {
                    big
                } else {
                    kind
                });
        let time = number(PREFIX + 16).zip(number(PREFIX + 24));
        let time = time.filter(|(s, ns)| known && *s > 0 && (0..1_000_000_000).contains(ns));
        Stamped {
            start: PREFIX + CONTROL,
            at: time.map(|(s, ns)| Duration::new(s.unsigned_abs(), ns as u32)),
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
            // SAFETY: all zeroes are a message without address, control message and bytes.
            message: Box::new(unsafe { std::mem::zeroed() }),
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
