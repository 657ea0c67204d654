//! Sweeping: index rows that nobody may ask for any more leave the index, and what is left is counted.
//!
//! Rows of batches below the log start, and all rows of deleted topics. Nothing is written down about it: what is left
//! over after a crash, or comes back when the log is replayed, is found again by looking. Called by
//! [`maintenance`](crate::maintenance).

use std::sync::{Arc, PoisonError};

use crate::ids::{Offset, PartitionNumber};
use crate::index::IndexError;
use crate::keys::log::BatchKey;
use crate::keys::time::TimeKey;
use crate::maintenance::{MaintenanceError, Now, Task, Turn};
use crate::partition::Partition;
use crate::state::FIRST_PARTITION;
use crate::store::Core;

/// Rows looked at in one step, about.
const STEP_ROWS: usize = 2048;

/// Where the first look at the index has come.
#[derive(Default)]
enum Look {
    /// Rows of partitions that are no more are looked for from this number on.
    #[default]
    Begin,
    Strays(PartitionNumber),
    /// The batches of earlier runs are counted, partition by partition.
    Count(Vec<Counting>),
    Done,
}

/// A partition on the way of being counted.
struct Counting {
    partition: Arc<Partition>,
    next: Offset,
    end: Offset,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Sweep {
    look: Look,
    dead: Vec<PartitionNumber>,
    /// Partitions with rows below their log start.
    todo: Vec<Arc<Partition>>,
    /// Log starts have moved since `todo` was made.
    moved: bool,
}

impl Task for Sweep {
    fn name(&self) -> &'static str {
        "sweeping the index"
    }

    fn step(&mut self, core: &Core, _now: Now) -> Result<Turn, MaintenanceError> {
        let news = core.maintenance.take_news();
        self.dead.extend(news.dead);
        self.moved |= news.moved;
        if self.moved && self.todo.is_empty() {
            self.moved = false;
            self.todo = unswept(core);
        }
        let was_done = self.done();
        let mut budget = STEP_ROWS;
        self.first_look(core, &mut budget)?;
        if matches!(self.look, Look::Done) && !(self.dead.is_empty() && self.todo.is_empty()) {
            // The tombstones and log starts have to be in the index before the rows they speak of leave it.
            if !core.settle() {
                return Ok(Turn::Idle(i64::MAX));
            }
            self.sweep_dead(core, &mut budget)?;
            self.sweep_live(core, &mut budget)?;
        }
        if self.done() && !was_done {
            // Sizes are exact now.
            core.maintenance.wake();
        }
        Ok(if self.done() { Turn::Idle(i64::MAX) } else { Turn::More })
    }
}

fn partitions(core: &Core) -> Vec<Arc<Partition>> {
    core.partitions.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}

fn unswept(core: &Core) -> Vec<Arc<Partition>> {
    let mut all = partitions(core);
    all.retain(|partition| partition.swept_below() < partition.offsets().log_start);
    all
}

impl Sweep {
    fn done(&self) -> bool {
        matches!(self.look, Look::Done) && self.dead.is_empty() && self.todo.is_empty() && !self.moved
    }

    /// After an opening: what earlier runs left.
    fn first_look(&mut self, core: &Core, budget: &mut usize) -> Result<(), IndexError> {
        while *budget > 0 {
            match &mut self.look {
                Look::Begin => self.look = Look::Strays(FIRST_PARTITION),
                Look::Strays(from) => match core.index.partition_from(*from)? {
                    Some(number) => {
                        let known =
                            core.partitions.read().unwrap_or_else(PoisonError::into_inner).contains_key(&number);
                        if !known && !self.dead.contains(&number) {
                            self.dead.push(number);
                        }
                        *from = PartitionNumber(number.0 + 1);
                        // A seek costs as much as some rows.
                        *budget = budget.saturating_sub(8);
                    }
                    None => {
                        let counting = |partition: Arc<Partition>| {
                            let end = partition.counted_from();
                            Counting { partition, next: 0, end }
                        };
                        self.look = Look::Count(partitions(core).into_iter().map(counting).collect());
                    }
                },
                Look::Count(left) => match left.last_mut() {
                    Some(counting) => {
                        if counting.step(core, budget)? {
                            left.pop();
                        }
                    }
                    None => {
                        self.look = Look::Done;
                        self.moved = true;
                    }
                },
                Look::Done => return Ok(()),
            }
        }
        Ok(())
    }

    fn sweep_dead(&mut self, core: &Core, budget: &mut usize) -> Result<(), IndexError> {
        while *budget > 0
            && let Some(number) = self.dead.last()
        {
            let removed = core.index.remove_partition(*number, *budget)?;
            if removed < *budget {
                self.dead.pop();
            }
            *budget = budget.saturating_sub(removed.max(8));
        }
        Ok(())
    }

    fn sweep_live(&mut self, core: &Core, budget: &mut usize) -> Result<(), IndexError> {
        while *budget > 0
            && let Some(partition) = self.todo.last().cloned()
        {
            if partition.is_gone() || sweep_below(core, &partition, budget)? {
                self.todo.pop();
            }
        }
        Ok(())
    }
}

impl Counting {
    /// True when the partition is counted.
    fn step(&mut self, core: &Core, budget: &mut usize) -> Result<bool, IndexError> {
        let (mut bytes, mut rows) = (0, 0);
        let mut done = true;
        for row in core.index.batches_from(self.partition.number(), self.next) {
            let (base_offset, row) = row?;
            if base_offset >= self.end {
                break;
            }
            if rows >= *budget {
                done = false;
                break;
            }
            rows += 1;
            bytes += i64::from(row.payload_len);
            self.next = row.next_offset(base_offset);
        }
        *budget = budget.saturating_sub(rows.max(8));
        self.partition.count_bytes(bytes);
        if done {
            self.partition.set_counted();
        }
        Ok(done)
    }
}

/// Takes the rows of batches wholly below the log start out; true when none is left.
fn sweep_below(core: &Core, partition: &Partition, budget: &mut usize) -> Result<bool, IndexError> {
    let number = partition.number();
    let log_start = partition.offsets().log_start;
    let (mut batches, mut bytes, mut next) = (Vec::new(), 0, log_start);
    // A batch that held an earlier log start was kept then.
    let from = core.index.batch_at_or_before(number, partition.swept_below())?.map_or(0, |(base, _)| base);
    for row in core.index.batches_from(number, from) {
        let (base_offset, row) = row?;
        if row.next_offset(base_offset) > log_start {
            break;
        }
        if batches.len() >= *budget {
            next = base_offset;
            break;
        }
        batches.push(BatchKey { partition: number, base_offset });
        bytes += i64::from(row.payload_len);
    }
    let times = old_times(core, number, next)?;
    if !(batches.is_empty() && times.is_empty()) {
        core.index.remove(&batches, &times)?;
        partition.count_bytes(-bytes);
    }
    *budget = budget.saturating_sub((batches.len() + times.len()).max(8));
    partition.set_swept(next);
    Ok(next >= log_start)
}

/// Time rows of batches below `next`, but for the partition's last one: what comes later is held against that.
fn old_times(core: &Core, partition: PartitionNumber, next: Offset) -> Result<Vec<TimeKey>, IndexError> {
    let mut times = Vec::new();
    let mut before = None;
    for row in core.index.time_rows(partition) {
        let (timestamp, offset) = row?;
        times.extend(before.replace(TimeKey { partition, timestamp }));
        if offset >= next {
            break;
        }
    }
    Ok(times)
}
