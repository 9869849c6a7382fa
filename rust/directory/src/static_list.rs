//! A list of names as directory: in the URL itself, or in a file.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::deadline::left;
use crate::lease::Held;
use crate::watch::Changes;
use crate::{Change, Directory, Error, Lease, Name, Record, Watch};

/// A list of names. Programs cannot change it: to publish a name is to find out that the list has it.
#[derive(Clone, Debug)]
pub(crate) enum StaticList {
    /// What the URL says.
    Given(Names),
    /// A file with a name in each line, read at each call.
    InFile(PathBuf),
}

pub(crate) type Names = BTreeMap<Name, Record>;

impl StaticList {
    /// Of what follows `static:`; the error says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if !text.contains('=') {
            let list = Self::InFile(PathBuf::from(text));
            return list.read().map(|_| list);
        }
        let lines = text.split(',').map(str::trim).filter(|line| !line.is_empty());
        let names = lines.map(parse_line).collect::<Result<_, _>>();
        names.map(Self::Given).map_err(|problem| Error::Url { url: format!("static:{text}"), problem })
    }

    fn read(&self) -> Result<Names, Error> {
        match self {
            Self::Given(names) => Ok(names.clone()),
            Self::InFile(path) => read_file(path),
        }
    }
}

impl Directory for StaticList {
    fn publish(&self, name: &Name, record: &Record, _: Instant) -> Result<Lease, Error> {
        record.encode(name)?;
        let names = self.read()?;
        let listed = names.get(name).map(|listed| listed.address.as_str());
        if listed == Some(&record.address) {
            return Ok(Lease::new(name.clone(), Box::new(Listed)));
        }
        Err(Error::NotListed {
            name: name.to_string(),
            address: record.address.clone(),
            listed: listed.map_or_else(|| "nothing of it".to_owned(), |address| format!("{name}={address}")),
        })
    }

    fn look_up(&self, name: &Name, _: Instant) -> Result<Option<Record>, Error> {
        Ok(self.read()?.remove(name))
    }

    fn list(&self, prefix: &str, _: Instant) -> Result<Vec<(Name, Record)>, Error> {
        Ok(self.read()?.into_iter().filter(|(name, _)| name.as_str().starts_with(prefix)).collect())
    }

    fn watch(&self, prefix: &str) -> Result<Watch, Error> {
        let told = Names::new();
        Ok(Watch::new(Box::new(Polled {
            list: self.clone(),
            prefix: prefix.to_owned(),
            told,
            waiting: VecDeque::new(),
        })))
    }

    fn describe(&self) -> String {
        match self {
            Self::Given(names) => format!("static: (a list of {})", names.len()),
            Self::InFile(path) => format!("static:{}", path.display()),
        }
    }
}

/// A name that the list has for good.
#[derive(Debug)]
struct Listed;

impl Held for Listed {
    fn lost(&self) -> bool {
        false
    }

    fn withdraw(&self, _: Instant) -> Result<(), Error> {
        Ok(())
    }
}

/// The changes of a list, found by reading it again and again.
#[derive(Debug)]
struct Polled {
    list: StaticList,
    prefix: String,
    told: Names,
    waiting: VecDeque<Change>,
}

impl Changes for Polled {
    fn next(&mut self, timeout: Duration) -> Result<Option<Change>, Error> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Ok(Some(change));
            }
            let now = self.list.list(&self.prefix, Instant::now())?.into_iter().collect();
            self.waiting.extend(differences(&self.told, &now));
            self.told = now;
            if self.waiting.is_empty() {
                let left = deadline.map_or(Some(INTERVAL), left);
                let Some(left) = left else { return Ok(None) };
                sleep(left.min(INTERVAL));
            }
        }
    }
}

/// What has changed from `before` to `now`.
pub(crate) fn differences(before: &Names, now: &Names) -> Vec<Change> {
    let gone = before.keys().filter(|name| !now.contains_key(name)).cloned().map(Change::Withdrawn);
    let new = now.iter().filter(|(name, record)| before.get(name) != Some(record));
    gone.chain(new.map(|(name, record)| Change::Published(name.clone(), record.clone()))).collect()
}

fn read_file(path: &Path) -> Result<Names, Error> {
    let error = |reason| Error::File {
        operation: "read the list of names",
        path: path.display().to_string(),
        reason,
    };
    let is_file = fs::metadata(path).map_err(|failed| error(failed.to_string()))?.is_file();
    if !is_file {
        return Err(error("it is not a file".to_owned()));
    }
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_string(&mut text))
        .map_err(|failed| error(failed.to_string()))?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(error(format!("it is larger than {LARGEST_FILE} bytes")));
    }
    let mut names = Names::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (name, record) =
            parse_line(line).map_err(|problem| error(format!("line {}: {problem}", number + 1)))?;
        names.insert(name, record);
    }
    Ok(names)
}

/// `name=host:port`, or with blanks instead of `=`.
fn parse_line(line: &str) -> Result<(Name, Record), String> {
    let (name, address) =
        line.split_once(['=', ' ', '\t']).ok_or_else(|| format!("{line:?} is not NAME=HOST:PORT"))?;
    let name = Name::new(name.trim()).map_err(|error| error.to_string())?;
    let record = Record::of_address(address.trim());
    record.encode(&name).map_err(|error| error.to_string())?;
    Ok((name, record))
}

/// How often a watch reads the list again: a line that is added is seen within a second.
const INTERVAL: Duration = Duration::from_millis(500);

/// Bytes of a file; a hundred thousand names.
const LARGEST_FILE: u64 = 8 << 20;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    #[test]
    fn a_list_in_the_url_is_the_directory() {
        let list = StaticList::parse("a/1=192.0.2.1:7, a/2=host:8,b=[::1]:9").unwrap();
        assert_eq!(list.look_up(&name("a/2"), soon()).unwrap().unwrap().address, "host:8");
        assert_eq!(list.look_up(&name("c"), soon()).unwrap(), None);
        assert_eq!(list.list("a/", soon()).unwrap().len(), 2);
        for bad in ["a=", "a=b", "a=b:0", "=h:1", "a b=h:1", "a=h:1,b"] {
            let error = StaticList::parse(bad).unwrap_err().to_string();
            assert!(error.contains("static:"), "{error}");
        }
    }

    #[test]
    fn a_name_is_published_where_the_list_has_it() {
        let list = StaticList::parse("a=192.0.2.1:7").unwrap();
        let lease = list.publish(&name("a"), &Record::of_address("192.0.2.1:7"), soon()).unwrap();
        assert!(!lease.lost());
        lease.withdraw(soon()).unwrap();
        for (asked, address) in [("a", "192.0.2.1:8"), ("b", "192.0.2.1:7")] {
            let error = list.publish(&name(asked), &Record::of_address(address), soon()).unwrap_err();
            assert!(error.to_string().contains(&format!("{asked}={address}")), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("names");
        let missing = StaticList::parse(path.to_str().unwrap()).unwrap_err();
        assert!(matches!(missing, Error::File { .. }), "{missing}");
        fs::write(&path, "# peers\na=192.0.2.1:7\nb  192.0.2.2:7 # second\n\n").unwrap();
        let list = StaticList::parse(path.to_str().unwrap()).unwrap();
        let mut watch = list.watch("").unwrap();
        for expected in ["a", "b"] {
            let change = watch.next(Duration::ZERO).unwrap().unwrap();
            assert!(matches!(change, Change::Published(found, _) if found == name(expected)));
        }
        assert_eq!(watch.next(Duration::ZERO).unwrap(), None);
        fs::write(&path, "b=192.0.2.3:7\n").unwrap();
        let change = watch.next(Duration::from_secs(5)).unwrap().unwrap();
        assert_eq!(change, Change::Withdrawn(name("a")));
        let change = watch.next(Duration::ZERO).unwrap().unwrap();
        assert_eq!(change, Change::Published(name("b"), Record::of_address("192.0.2.3:7")));
        fs::write(&path, "b=192.0.2.3:7\nc").unwrap();
        let error = watch.next(Duration::from_secs(5)).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
        assert!(StaticList::parse(folder.path().to_str().unwrap()).is_err(), "a folder");
    }
}
