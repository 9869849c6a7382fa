//! The limits of rails as the variables set them.

use std::time::Duration;

use super::Config;
use crate::rails::{PlanLimits, RailLimits};

impl Config {
    /// When rails are asked, left and tried again.
    #[doc(hidden)]
    pub fn rail_limits(&self) -> RailLimits {
        let first_pause = nanos(self.rail_pause);
        RailLimits {
            silence: nanos(self.rail_silence),
            gaps: self.rail_silence_gaps,
            answer: nanos(self.rail_answer),
            errors: self.rail_failures,
            window: nanos(self.rail_failure_window),
            first_pause,
            longest_silent_pause: first_pause.saturating_mul(2),
            longest_pause: nanos(self.rail_longest_pause).max(first_pause),
        }
    }

    /// When a transfer uses several rails. The shares of the smallest one that does have half of it each.
    #[doc(hidden)]
    pub fn rail_plan_limits(&self) -> PlanLimits {
        let defaults = PlanLimits::default();
        PlanLimits {
            one_rail_below: self.rail_min_bytes,
            least_share: defaults.least_share.min(self.rail_min_bytes / 2),
            ..defaults
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rails::{MILLISECOND, RailMap};

    fn config(settings: &[(&str, &str)]) -> Config {
        Config::from_source(&|name| {
            let found = settings.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn unset_variables_are_the_limits_of_the_rules() {
        let config = config(&[]);
        assert_eq!(config.rail_limits(), RailLimits::default());
        assert_eq!(config.rail_plan_limits(), PlanLimits::default());
        assert_eq!(config.rail_map, RailMap::default());
    }

    #[test]
    fn each_variable_sets_its_limit() {
        let limits = |name: &str, text: &str| config(&[(name, text)]).rail_limits();
        let defaults = RailLimits::default();
        let silence = limits("FLAGCX_P2P_RAIL_SILENCE_MS", "10");
        assert_eq!(silence, RailLimits { silence: 10 * MILLISECOND, ..defaults });
        let answer = limits("FLAGCX_P2P_RAIL_ANSWER_MS", "20");
        assert_eq!(answer, RailLimits { answer: 20 * MILLISECOND, ..defaults });
        let pause = limits("FLAGCX_P2P_RAIL_PAUSE_MS", "5000");
        assert_eq!(
            (pause.first_pause, pause.longest_silent_pause, pause.longest_pause),
            (5_000 * MILLISECOND, 10_000 * MILLISECOND, 5_000 * MILLISECOND)
        );
        let gaps = limits("FLAGCX_P2P_RAIL_SILENCE_GAPS", "4");
        assert_eq!(gaps, RailLimits { gaps: 4, ..defaults });
        let failures = limits("FLAGCX_P2P_RAIL_FAILURES", "3");
        assert_eq!(failures, RailLimits { errors: 3, ..defaults });
        let window = limits("FLAGCX_P2P_RAIL_FAILURE_WINDOW_MS", "500");
        assert_eq!(window, RailLimits { window: 500 * MILLISECOND, ..defaults });
        let longest = |text| limits("FLAGCX_P2P_RAIL_LONGEST_PAUSE_MS", text);
        assert_eq!(longest("60000"), RailLimits { longest_pause: 60_000 * MILLISECOND, ..defaults });
        assert_eq!(longest("1"), RailLimits { longest_pause: 4 * MILLISECOND, ..defaults }, "the first one");
        for (bytes, least) in [(4_u64 << 20, 256 << 10), (8192, 4096)] {
            let plan = config(&[("FLAGCX_P2P_RAIL_MIN_BYTES", &bytes.to_string())]).rail_plan_limits();
            assert_eq!((plan.one_rail_below, plan.least_share), (bytes, least));
        }
    }

    #[test]
    fn a_map_that_is_none_is_one_warning_and_counts_as_unset() {
        let good = config(&[("FLAGCX_P2P_RAIL_MAP", "a:b, c:d")]);
        assert_eq!((Ok(good.rail_map), good.warnings.len()), (RailMap::parse("a:b,c:d"), 0));
        let bad = config(&[("FLAGCX_P2P_RAIL_MAP", "a:b,c")]);
        assert_eq!(bad.rail_map, RailMap::default());
        let [warning] = &bad.warnings[..] else { panic!("{:?}", bad.warnings) };
        assert!(
            warning.text.contains("FLAGCX_P2P_RAIL_MAP") && warning.text.contains("element 2 (\"c\")"),
            "{}",
            warning.text
        );
        assert_eq!(bad.check(), Ok(()), "the first rail goes on");
    }
}
