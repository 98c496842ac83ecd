#![allow(clippy::unwrap_used)]
use std::collections::{HashMap, HashSet};

use super::*;

/// Reads the text format back: every sample by its name and labels. Panics on what a scraper would refuse.
fn parse(text: &str) -> HashMap<String, f64> {
    let mut samples = HashMap::new();
    let mut types = HashSet::new();
    let mut family = String::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind));
            assert!(types.insert(name.to_owned()), "{name} is declared twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            family = name.to_owned();
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            assert!(name == family || base == Some(&family), "{line} is outside of its family");
            assert!(series.ends_with('}') || !series.contains('{'), "{line}");
            assert!(
                samples.insert(series.to_owned(), value.parse().unwrap()).is_none(),
                "{series} is there twice"
            );
        }
    }
    samples
}

#[test]
fn what_is_counted_is_rendered() {
    let metrics = Metrics::default();
    let one = AppSample {
        id: "1".into(),
        websockets: 1,
        streams: 7,
        connections_opened: 9,
        channels: 3,
        messages_received: 1,
        messages_sent: 1000,
        events_published: 4,
        refusals: vec![("unauthorized", 6)],
        ..AppSample::default()
    };
    let two = AppSample { id: "2".into(), channels: 5, ..AppSample::default() };
    metrics.http_connections.inc();
    metrics.refusals.inc("b");
    metrics.refusals.inc("a");
    metrics.refusals.inc("b");
    metrics.api_requests.inc(("publish", 200));
    metrics.api_requests.inc(("publish", 401));
    metrics.slow_consumers[Slow::Age].inc();
    let apps = [one, two];
    let sample =
        Sample { apps: &apps, accepted: 1, bytes_in: 10, bytes_out: 20, shed: 2, ..Sample::default() };
    let samples = parse(&metrics.counted().render(&sample));
    for (series, value) in [
        ("connections{app=\"1\",transport=\"websocket\"}", 1.0),
        ("connections{app=\"1\",transport=\"sse\"}", 7.0),
        ("connections{app=\"2\",transport=\"sse\"}", 0.0),
        ("connections_opened_total{app=\"1\"}", 9.0),
        ("channels{app=\"1\"}", 3.0),
        ("channels{app=\"2\"}", 5.0),
        ("messages_received_total{app=\"1\"}", 1.0),
        ("messages_sent_total{app=\"1\"}", 1000.0),
        ("received_bytes_total", 10.0),
        ("sent_bytes_total", 20.0),
        ("app_refusals_total{app=\"1\",reason=\"unauthorized\"}", 6.0),
        ("events_published_total{app=\"1\"}", 4.0),
        ("accepted_total", 1.0),
        ("accept_errors_total", 0.0),
        ("shed_total", 2.0),
        ("http_connections", 1.0),
        ("refusals_total{reason=\"a\"}", 1.0),
        ("refusals_total{reason=\"b\"}", 2.0),
        ("api_requests_total{operation=\"publish\",status=\"200\"}", 1.0),
        ("api_requests_total{operation=\"publish\",status=\"401\"}", 1.0),
        ("slow_consumers_total{reason=\"age\"}", 1.0),
        ("slow_consumers_total{reason=\"bytes\"}", 0.0),
        ("turn_seconds_count", 0.0),
    ] {
        assert_eq!(samples.get(&format!("evenkeel_hub_{series}")), Some(&value), "{series}");
    }
    assert_eq!(metrics.refusals.get("b"), 2);
}

#[test]
fn turns_become_a_cumulative_histogram() {
    let turns = [(0.0001, 5), (0.001, 3), (0.01, 0), (f64::INFINITY, 2)];
    let sample = Sample { turns: &turns, turns_seconds: 1.5, ..Sample::default() };
    let samples = parse(&Metrics::default().counted().render(&sample));
    let bucket = |le: &str| samples[&format!("evenkeel_hub_turn_seconds_bucket{{le=\"{le}\"}}")];
    assert_eq!([bucket("0.0001"), bucket("0.001"), bucket("0.01"), bucket("+Inf")], [5.0, 8.0, 8.0, 10.0]);
    assert_eq!(samples["evenkeel_hub_turn_seconds_count"], 10.0);
    assert_eq!(samples["evenkeel_hub_turn_seconds_sum"], 1.5);
}

#[test]
fn the_process_is_told_only_when_it_is_known() {
    let unknown = Metrics::default().counted().render(&Sample::default());
    assert!(!unknown.contains("process_"));
    let sample = Sample {
        resident_bytes: Some(1 << 20),
        open_fds: Some(12),
        max_fds: Some(20_000),
        log_lines_lost: 3,
        ..Sample::default()
    };
    let samples = parse(&Metrics::default().counted().render(&sample));
    assert_eq!(samples["process_resident_memory_bytes"], 1_048_576.0);
    assert_eq!((samples["process_open_fds"], samples["process_max_fds"]), (12.0, 20_000.0));
    assert_eq!(samples["evenkeel_hub_log_lines_lost_total"], 3.0);
}

#[test]
fn the_backend_is_told_with_the_reason_for_it() {
    let backend_info = |backend, fallback| {
        let text = Metrics::default().counted().render(&Sample { backend, fallback, ..Sample::default() });
        let line = text.lines().find_map(|line| line.strip_prefix("evenkeel_hub_backend_info"));
        line.unwrap().to_owned()
    };
    assert_eq!(backend_info("io_uring", ""), r#"{backend="io_uring",fallback=""} 1"#);
    let refused = "Operation not permitted (os error 1)";
    assert_eq!(backend_info("epoll", refused), format!(r#"{{backend="epoll",fallback="{refused}"}} 1"#));
}

#[test]
fn labels_cannot_break_out_of_their_quotes() {
    let app = AppSample { id: "a\"} 1\nevil{x=\"\\".into(), channels: 1, ..AppSample::default() };
    let text = Metrics::default().counted().render(&Sample { apps: &[app], ..Sample::default() });
    assert!(text.contains(r#"evenkeel_hub_channels{app="a\"} 1\nevil{x=\"\\"} 1"#), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("evil")));
}

#[test]
#[should_panic(expected = "decremented more often")]
#[cfg(debug_assertions)]
fn counting_out_what_was_not_counted_in_is_our_own_mistake() {
    Gauge::default().dec();
}
