//! The guest's way from host to host: its memory over a socket, first while it runs, the rest when it has stopped.
//!
//! The source sends records: the page's number (u64, little-endian) and its 4096 bytes. [`END`] in place of a number is followed by the
//! checksum of the whole memory, and the target answers it with one byte. One more byte of the source may follow, its word to
//! start the guest. As in every such protocol, that answer can be lost; the source lets its guest run on then, which is
//! wrong if the guest runs at the target, too (see `spice_migration::migrate`).

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    guest::{Checksum, Guest, PAGE_LEN},
    task::Input,
};

/// In place of a page's number: all pages have been sent.
const END: u64 = u64::MAX;

/// What the target says when it has the whole guest.
const WHOLE: u8 = 1;

/// What the source says to have the guest started.
const START: u8 = 2;

/// Pages that are sent at once.
const BATCH: usize = 64;

/// How long either side waits for the other one's next bytes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a copy that is kept in its live stage pauses between two batches.
const THROTTLED_PAUSE: Duration = Duration::from_millis(5);

/// How far the copy is, as the host's task is told.
#[derive(Debug)]
pub(super) enum Progress {
    /// At the source: what is left is small enough to stop the guest for.
    LiveStageDone,
    /// At the source: all of the guest is at the target.
    Moved,
    /// At the target: all of the guest is here.
    Arrived,
    /// At the target: the source says that the guest may run.
    SourceSaysStart,
    /// At either: it will not come to an end.
    Failed(String),
}

/// What a copy that is being sent is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// The guest has stopped: send the rest.
    Finish,
    /// Tell the target to start the guest.
    Start,
}

/// How a guest is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Where the target waits for it.
    pub(super) to: SocketAddr,
    /// Whether its live stage lasts until it is cancelled.
    pub(super) throttled: bool,
    /// Most bytes in a second.
    pub(super) bandwidth: Option<u64>,
}

/// Tells the host's task how far one copy is.
#[derive(Debug)]
pub(super) struct Report {
    /// Which copy.
    pub(super) attempt: u64,
    pub(super) inputs: mpsc::Sender<Input>,
}

impl Report {
    async fn tell(&self, progress: Progress) {
        // If nobody takes it, the host has ended.
        let _ = self.inputs.send(Input::Copying { attempt: self.attempt, progress }).await;
    }
}

/// Sends the guest; what becomes of it is told through `report`.
pub(super) async fn send(guest: Guest, way: Way, mut orders: mpsc::UnboundedReceiver<Order>, report: Report) {
    if let Err(error) = try_to_send(&guest, way, &mut orders, &report).await {
        report.tell(Progress::Failed(error.to_string())).await;
    }
}

async fn try_to_send(
    guest: &Guest,
    way: Way,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    report: &Report,
) -> io::Result<()> {
    let mut outgoing =
        Outgoing { stream: TcpStream::connect(way.to).await?, bandwidth: way.bandwidth, due: Instant::now() };
    guest.mark_all_dirty();
    while way.throttled || !guest.is_copied_but_for_the_working_set() {
        outgoing.send_batch(guest).await?;
        if way.throttled {
            sleep(THROTTLED_PAUSE).await;
        }
    }
    report.tell(Progress::LiveStageDone).await;
    let Some(Order::Finish) = orders.recv().await else { return Ok(()) };
    while outgoing.send_batch(guest).await? {}
    let end = [&END.to_le_bytes()[..], &guest.checksum()].concat();
    outgoing.stream.write_all(&end).await?;
    match timeout(PATIENCE, outgoing.stream.read_u8()).await?? {
        WHOLE => report.tell(Progress::Moved).await,
        other => return Err(io::Error::other(format!("the target answers {other}"))),
    }
    if let Some(Order::Start) = orders.recv().await {
        outgoing.stream.write_u8(START).await?;
    }
    Ok(())
}

struct Outgoing {
    stream: TcpStream,
    bandwidth: Option<u64>,
    /// When the next batch may be sent.
    due: Instant,
}

impl Outgoing {
    /// Sends some pages; `false` if there are none to send.
    async fn send_batch(&mut self, guest: &Guest) -> io::Result<bool> {
        let mut batch = Vec::with_capacity(BATCH * (8 + PAGE_LEN));
        guest.take_dirty(BATCH, |page, content| {
            batch.extend(page.to_le_bytes());
            batch.extend(content);
        });
        timeout(PATIENCE, self.stream.write_all(&batch)).await??;
        if let Some(bandwidth) = self.bandwidth {
            let due = self.due.max(Instant::now().checked_sub(Duration::from_millis(10)).unwrap_or(self.due));
            self.due = due + Duration::from_secs_f64(batch.len() as f64 / bandwidth as f64);
            sleep_until(self.due).await;
        }
        Ok(!batch.is_empty())
    }
}

/// Receives a guest.
pub(super) async fn receive(guest: Guest, stream: TcpStream, report: Report) {
    let mut stream = BufReader::with_capacity(BATCH * PAGE_LEN, stream);
    if let Err(error) = receive_pages(&guest, &mut stream).await {
        return report.tell(Progress::Failed(error.to_string())).await;
    }
    // The source must not hear of it before this host has it.
    report.tell(Progress::Arrived).await;
    // If the source cannot be told, it finds out by itself.
    let _ = stream.write_u8(WHOLE).await;
    if let Ok(START) = stream.read_u8().await {
        report.tell(Progress::SourceSaysStart).await;
    }
}

async fn receive_pages(guest: &Guest, stream: &mut BufReader<TcpStream>) -> io::Result<()> {
    let mut page = [0; PAGE_LEN];
    loop {
        let number = timeout(PATIENCE, stream.read_u64_le()).await??;
        if number == END {
            break;
        }
        timeout(PATIENCE, stream.read_exact(&mut page)).await??;
        if !guest.put(number, &page) {
            return Err(io::Error::other(format!("page {number} is beyond the guest's memory")));
        }
    }
    let mut checksum = Checksum::default();
    timeout(PATIENCE, stream.read_exact(&mut checksum)).await??;
    if checksum != guest.checksum() {
        return Err(io::Error::other("the guest's memory is not what the source has sent"));
    }
    Ok(())
}
