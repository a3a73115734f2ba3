//! Owns the memory that the kernel and this process share beside the ring itself: the buffers it receives into, and the
//! promise behind each submission. All unsafe code of the crate is here.
#![expect(
    unsafe_code,
    reason = "io_uring reads and writes our memory; measured beside it, epoll costs 1.27 times the CPU a request"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, squeue};

/// The buffers' name within the ring.
pub(super) const GROUP: u16 = 0;
/// How many; a power of two.
const COUNT: u16 = 128;
/// Length of each, in bytes.
const SIZE: usize = 16 * 1024;
const PAGE: usize = 4096;

/// Puts an entry into the submission queue, which has room.
pub(super) fn push(ring: &mut IoUring, entry: &squeue::Entry) -> io::Result<()> {
    // SAFETY: entries point to nothing (polls, receives into registered buffers) or, sends, to the heap of a socket's
    // `out`, which is neither changed nor freed before their completion: `Uring::send` and `Uring::sent` touch it
    // only while the socket is not busy, `Uring::close` keeps it in `closing` while anything is pending, and `Drop`
    // leaks it when the kernel does not answer. The descriptors are owned by the same sockets.
    unsafe { ring.submission().push(entry) }.map_err(|_| io::ErrorKind::WouldBlock.into())
}

/// Buffers that the kernel takes as it needs them, and the ring through which it gets them back.
pub(super) struct Buffers {
    memory: NonNull<u8>,
    /// Where the next buffer is put in the ring; only its lowest bits count.
    tail: u16,
    leaked: bool,
}

impl Buffers {
    fn layout() -> Layout {
        let ring = usize::from(COUNT) * size_of::<BufRingEntry>();
        let bytes = ring.next_multiple_of(PAGE) + usize::from(COUNT) * SIZE;
        Layout::from_size_align(bytes, PAGE).expect("constants that make a layout")
    }

    /// Allocates them and tells the kernel.
    pub(super) fn register(ring: &IoUring) -> io::Result<Buffers> {
        let layout = Buffers::layout();
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        let mut buffers = Buffers {
            memory,
            tail: 0,
            leaked: false,
        };
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
            unsafe { dealloc(self.memory.as_ptr(), Buffers::layout()) }
        }
    }
}
