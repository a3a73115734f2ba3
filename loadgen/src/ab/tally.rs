//! Owns what a run of ab counts, and ab's rules of what counts as what.
//! Must not know sockets or the report's layout.

use std::time::Duration;

use super::column::Column;

/// The times of one request, in microseconds but for the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// When it began, since 1970.
    pub(super) started: Duration,
    /// Dial and TLS handshake; 0 on a kept connection.
    pub(super) connect: u32,
    /// From its beginning to the last byte, the dial included.
    pub(super) total: u32,
    /// From the last byte sent to the first received.
    pub(super) waiting: u32,
}

/// How one answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    /// Bytes of its body.
    pub(super) body: u64,
    /// Its header lines came, and as many bytes as they promised.
    pub(super) complete: bool,
}

/// What a run counted; memory is constant unless samples are kept.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// From the first dial to the last event.
    pub(super) elapsed: Duration,
    /// Requests that ended, well or not.
    pub(super) done: u64,
    /// Answers after which the connection stayed open.
    pub(super) kept: u64,
    good: u64,
    /// Failures: the sum of what ab counts one by one.
    pub(super) bad: u64,
    pub(super) failed_connect: u64,
    pub(super) failed_receive: u64,
    pub(super) failed_length: u64,
    pub(super) exceptions: u64,
    pub(super) write_errors: u64,
    pub(super) not_2xx: u64,
    /// Body length of the first complete answer.
    pub(super) length: u64,
    pub(super) received: u64,
    pub(super) body_received: u64,
    /// Bytes sent, header lines included.
    pub(super) sent: u64,
    pub(super) server: String,
    /// Protocol, suite, bits of the server's key and of the cipher.
    pub(super) tls: Option<String>,
    /// The key exchange.
    pub(super) temp_key: Option<String>,
    /// The server name sent in the handshake.
    pub(super) tls_name: Option<String>,
    pub(super) connect: Column,
    pub(super) processing: Column,
    pub(super) waiting: Column,
    pub(super) total: Column,
    /// Only with `-g`.
    pub(super) samples: Option<Vec<Sample>>,
    variable_length: bool,
}

impl Tally {
    pub(super) fn new(keep_samples: bool, variable_length: bool) -> Tally {
        Tally {
            elapsed: Duration::ZERO,
            done: 0,
            kept: 0,
            good: 0,
            bad: 0,
            failed_connect: 0,
            failed_receive: 0,
            failed_length: 0,
            exceptions: 0,
            write_errors: 0,
            not_2xx: 0,
            length: 0,
            received: 0,
            body_received: 0,
            sent: 0,
            server: String::new(),
            tls: None,
            temp_key: None,
            tls_name: None,
            connect: Column::new(),
            processing: Column::new(),
            waiting: Column::new(),
            total: Column::new(),
            samples: keep_samples.then(Vec::new),
            variable_length,
        }
    }

    /// No answer was complete yet.
    pub(super) fn none_good(&self) -> bool {
        self.good == 0
    }

    /// An answer ended: the first complete one sets the length that the others are compared with.
    pub(super) fn answered(&mut self, answer: Answer) {
        if answer.complete {
            self.good += 1;
            if self.good == 1 {
                self.length = answer.body;
                return;
            }
        }
        let differs = !self.variable_length && self.good > 0 && answer.body != self.length;
        if differs {
            self.bad += 1;
            self.failed_length += 1;
        } else if !answer.complete {
            self.bad += 1;
            self.exceptions += 1;
        }
    }

    /// Reading failed and the run goes on (`-r`). ab counts it twice: as read, and as an exception of the socket.
    pub(super) fn read_failed(&mut self, body: u64) {
        self.bad += 2;
        self.failed_receive += 1;
        self.exceptions += 1;
        self.body_differs(body);
    }

    /// A request that could not be written.
    pub(super) fn write_failed(&mut self) {
        self.write_errors += 1;
        self.bad += 1;
        self.exceptions += 1;
    }

    /// ab also compares what was read before a failure with the length of the first answer.
    fn body_differs(&mut self, body: u64) {
        if !self.variable_length && self.good > 0 && body != self.length {
            self.bad += 1;
            self.failed_length += 1;
        }
    }

    /// A dial or a TLS handshake failed.
    pub(super) fn connect_failed(&mut self) {
        self.bad += 1;
        self.failed_connect += 1;
    }

    /// A request ended: its times.
    pub(super) fn record(&mut self, sample: Sample) {
        self.done += 1;
        self.connect.add(u64::from(sample.connect));
        let processing = sample.total.saturating_sub(sample.connect);
        self.processing.add(u64::from(processing));
        self.waiting.add(u64::from(sample.waiting));
        self.total.add(u64::from(sample.total));
        if let Some(samples) = &mut self.samples {
            samples.push(sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(body: u64, complete: bool) -> Answer {
        Answer { body, complete }
    }

    #[test]
    fn the_first_complete_answer_sets_the_length() {
        let mut tally = Tally::new(false, false);
        tally.answered(ended(0, false));
        assert_eq!(
            (tally.exceptions, tally.bad, tally.none_good()),
            (1, 1, true)
        );
        tally.answered(ended(5, true));
        tally.answered(ended(5, true));
        tally.answered(ended(6, true));
        tally.answered(ended(0, false));
        tally.answered(ended(5, false));
        assert_eq!((tally.length, tally.failed_length), (5, 2));
        assert_eq!((tally.exceptions, tally.bad), (2, 4));
    }

    #[test]
    fn lengths_may_vary_with_l_but_answers_must_be_whole() {
        let mut tally = Tally::new(false, true);
        for body in [1, 2, 3] {
            tally.answered(ended(body, true));
        }
        tally.answered(ended(2, false));
        assert_eq!(
            (tally.bad, tally.failed_length, tally.exceptions),
            (1, 0, 1)
        );
    }
}
