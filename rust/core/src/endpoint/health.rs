//! `/healthz`: whether the engines of the process can work.

use super::answer::HttpResponse;
use super::request::HttpStatus;
use crate::observe::{Sample, Snapshot, Value, metrics};

/// 200 when an engine has a device and no device's port is down; else 503, with the reason.
///
/// The endpoint itself is open only while the process has an engine: without one no process listens.
pub(super) fn answer(snapshot: &Snapshot) -> HttpResponse {
    if snapshot.of(&metrics::DEVICE).next().is_none() {
        let text = "no engine of this process has a device: see its log, and `flagcx-p2p doctor`";
        return HttpResponse::line(HttpStatus::ServiceUnavailable, text);
    }
    let down: Vec<_> = snapshot
        .of(&metrics::DEVICE_UP)
        .filter(|sample| sample.value == Value::Number(0))
        .map(|sample| format!("device {} port {} is down", label(sample, "device"), label(sample, "port")))
        .collect();
    match down.as_slice() {
        [] => HttpResponse::line(HttpStatus::Ok, "ok"),
        down => HttpResponse::line(HttpStatus::ServiceUnavailable, &down.join("\n")),
    }
}

fn label<'a>(sample: &'a Sample, name: &str) -> &'a str {
    sample.labels.iter().find(|(found, _)| *found == name).map_or("?", |(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_given() {
        let mut snapshot = Snapshot::default();
        let device = |name: &str| [("device", name.to_owned()), ("port", "1".to_owned())];
        let answered = |snapshot: &Snapshot| (answer(snapshot).status, answer(snapshot).body);
        assert_eq!(answered(&snapshot).0, HttpStatus::ServiceUnavailable);
        snapshot.number(&metrics::DEVICE, &device("mlx5_0"), 1);
        snapshot.number(&metrics::DEVICE_UP, &device("mlx5_0"), 1);
        assert_eq!(answered(&snapshot), (HttpStatus::Ok, "ok\n".to_owned()));
        snapshot.number(&metrics::DEVICE_UP, &device("mlx5_1"), 0);
        let expected = (HttpStatus::ServiceUnavailable, "device mlx5_1 port 1 is down\n".to_owned());
        assert_eq!(answered(&snapshot), expected);
    }
}
