//! Whether a name in use may be taken over.

use std::time::Instant;

use crate::probe::{NoConnect, Probe, probe, reach};
use crate::record::FILE_SERVER;
use crate::{Error, Name, Record};

/// Whether `ours` may take the place of `theirs`; the error says that it may not.
///
/// It may if `theirs` is of an engine that is gone; not if this host cannot ask. A peer that accepts connections and says nothing is not: it may be stopped for
/// a while, and its lease runs out when it is not.
pub(super) fn may_take_over(
    name: &Name,
    theirs: &Record,
    ours: &Record,
    deadline: Instant,
) -> Result<(), Error> {
    if theirs.is_of_the_engine_of(ours) || has_the_place_of(ours, theirs) {
        return Ok(());
    }
    if theirs.kind == FILE_SERVER {
        return match reach(&theirs.address, deadline) {
            Ok(()) => Err(in_use(name, theirs)),
            Err(NoConnect::Gone(reason)) => {
                tracing::info!(%name, address = theirs.address, reason, "the server that held the name is gone");
                Ok(())
            }
            Err(NoConnect::Unknown(reason)) => Err(not_known(name, theirs, reason)),
        };
    }
    match probe(&theirs.address, deadline) {
        Probe::Gone(reason) => {
            tracing::info!(%name, address = theirs.address, reason, "the engine that held the name is gone");
            Ok(())
        }
        Probe::Engine(Some(found)) if theirs.engine_id != 0 && found != theirs.engine_id => {
            tracing::info!(%name, address = theirs.address, "another engine has the address of the one that held the name");
            Ok(())
        }
        Probe::Engine(_) | Probe::Silent => Err(in_use(name, theirs)),
        Probe::Unknown(reason) => Err(not_known(name, theirs, reason)),
    }
}

fn not_known(name: &Name, theirs: &Record, reason: String) -> Error {
    Error::HolderUnknown { name: name.to_string(), address: theirs.address.clone(), reason }
}

fn in_use(name: &Name, theirs: &Record) -> Error {
    Error::NameInUse {
        name: name.to_string(),
        address: theirs.address.clone(),
        host: theirs.host.clone(),
        pid: theirs.pid,
    }
}

/// Whether both have one address on one host: two engines cannot, so the other one has ended.
fn has_the_place_of(ours: &Record, theirs: &Record) -> bool {
    !ours.host.is_empty() && ours.host == theirs.host && ours.address == theirs.address
}
