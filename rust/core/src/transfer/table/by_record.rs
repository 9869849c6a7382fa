//! Transfers by the addresses of their records, which is what workers know of them.

use crate::pool::PartOwner;
use crate::transfer::slots::{Block, Slot};

/// The blocks of a table, by their addresses: a 64th of what a list of records would be.
#[derive(Debug)]
pub(crate) struct ByRecord(Vec<&'static Block>);

impl ByRecord {
    pub(super) fn new(blocks: impl Iterator<Item = &'static Block>) -> Self {
        let mut blocks: Vec<_> = blocks.collect();
        blocks.sort_unstable_by_key(|block| std::ptr::from_ref(*block).addr());
        Self(blocks)
    }

    /// The id of the transfer that this use of the record at `address` is, 0 if the call that starts it has not returned; `None` once it
    /// has ended: the record may be another transfer's then.
    pub(crate) fn id(&self, address: usize, generation: u64) -> Option<u64> {
        let behind = self.0.partition_point(|block| std::ptr::from_ref(*block).addr() <= address);
        let block = self.0.get(behind.checked_sub(1)?)?;
        let offset = address - std::ptr::from_ref(*block).addr();
        let slot = block.get(offset / size_of::<Slot>())?;
        let (id, is_ended) = (slot.id(), slot.record.is_ended());
        // Last: an id that is not of this generation was published after the next one had begun.
        (!is_ended && PartOwner::generation(&slot.record) == generation).then_some(id)
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use crate::pool::PartOwner;
    use crate::transfer::{Table, TimeLimit};

    #[test]
    fn an_id_is_found_for_as_long_as_the_task_is_its_transfers() {
        let table = Table::default();
        // Of several blocks.
        let mut others: Vec<_> = (0..200).map(|_| table.acquire().unwrap()).collect();
        let transfer = others.pop().unwrap();
        let record = transfer.record();
        record.start(1, TimeLimit::NEVER);
        let (address, generation) = (std::ptr::from_ref(record).addr(), PartOwner::generation(record));
        assert_eq!(table.by_record().id(address, generation), Some(0), "not published");
        let id = table.publish(transfer, 1);
        assert_eq!(table.by_record().id(address, generation), Some(id.0));
        assert_eq!(table.by_record().id(1, generation), None);
        record.end_part();
        assert_eq!(table.by_record().id(address, generation), None, "it has ended");
        table.release(&table.find(id).unwrap(), String::new).unwrap();
        let next = table.acquire().unwrap();
        assert!(std::ptr::eq(next.record(), record), "the record is used again");
        record.start(1, TimeLimit::NEVER);
        table.publish(next, 1);
        assert_eq!(table.by_record().id(address, generation), None, "another transfer");
        record.end_part();
    }
}
