#![allow(clippy::unwrap_used)]
use std::rc::Rc;

use super::*;

/// A sink whose content the test can read, and that can be made to fail.
#[derive(Clone, Default)]
struct Sink(Rc<RefCell<Vec<u8>>>, Rc<Cell<bool>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.1.get() {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

fn logger(format: Format, level: Level) -> (Logger, Sink) {
    let sink = Sink::default();
    (Logger::new(format, level, Box::new(sink.clone())), sink)
}

#[test]
fn text_lines_read_as_promised() {
    let (log, sink) = logger(Format::Text, Level::Info);
    let fields = [
        ("channel", Value::Text("private-a")),
        ("reason", Value::Text("no \"auth\"")),
        ("count", Value::Number(3)),
        ("empty", Value::Text("")),
        ("token", Value::Redacted),
        ("peer", Value::Display(&std::net::Ipv4Addr::LOCALHOST)),
        ("ok", Value::Bool(false)),
    ];
    log.event(Level::Warn, 1_700_000_000_123, "refused", &fields);
    log.event(Level::Debug, 0, "hidden", &[]);
    assert_eq!(
        sink.text(),
        "2023-11-14T22:13:20.123Z WARN refused channel=private-a reason=\"no \\\"auth\\\"\" count=3 empty=\"\" \
         token=[redacted] peer=127.0.0.1 ok=false\n"
    );
}

#[test]
fn i50_hostile_values_stay_in_one_line_and_in_their_field() {
    let mut hostile = vec![
        "\r\nERROR forged".to_owned(),
        "\u{1b}[2J".to_owned(),
        "\u{202e}evil".to_owned(),
        "\",\"level\":\"error".to_owned(),
        "\\".to_owned(),
        "\\\"".to_owned(),
        "x".repeat(100_000),
        "🎉".repeat(1000),
        "\u{85}\u{2028}\0".to_owned(),
    ];
    hostile.extend((0..=255_u8).map(|byte| char::from(byte).to_string()));
    for value in &hostile {
        for format in [Format::Text, Format::Json] {
            let (log, sink) = logger(format, Level::Info);
            let fields = [("a", Value::Text(value)), ("b", Value::Display(value)), ("c", Value::Number(1))];
            log.event(Level::Info, 0, value, &fields);
            let line = sink.text();
            let body = line.strip_suffix('\n').unwrap();
            assert!(!body.contains(text::is_unsafe), "{line:?}");
            if format == Format::Json {
                let parsed: serde_json::Value = serde_json::from_str(body).unwrap();
                let object = parsed.as_object().unwrap();
                assert_eq!(object.len(), 6, "{line}");
                assert_eq!(object["level"], "info");
                assert_eq!(object["a"], object["b"]);
                let shown = object["a"].as_str().unwrap();
                assert!(shown.len() <= FIELD_BYTES);
                assert!(shown == value || value.starts_with(shown.strip_suffix('…').unwrap()));
            }
        }
    }
}

#[test]
fn a_flood_is_cut_and_counted_for_each_key_apart() {
    let (log, sink) = logger(Format::Text, Level::Info);
    for _ in 0..1000 {
        log.limited("refused", Level::Warn, 5_000, "refused", &[]);
    }
    log.limited("other", Level::Warn, 5_000, "other", &[]);
    assert_eq!(sink.text().matches(" refused").count(), LINES_PER_SECOND as usize);
    assert_eq!(sink.text().matches(" other").count(), 1);
    log.tick(5_999);
    assert!(!sink.text().contains("suppressed"), "the second is not over");
    log.tick(6_000);
    assert!(sink.text().contains("suppressed similar lines kind=refused count=990\n"));
    log.tick(7_000);
    assert_eq!(sink.text().matches("suppressed").count(), 1, "told once");
}

#[test]
fn the_next_event_of_a_later_second_tells_the_count_too() {
    let (log, sink) = logger(Format::Text, Level::Info);
    for _ in 0..12 {
        log.limited("refused", Level::Warn, 1_000, "refused", &[]);
    }
    log.limited("refused", Level::Warn, 2_000, "refused", &[]);
    assert!(sink.text().contains("count=2\n"));
    assert!(sink.text().ends_with(" refused\n"));
}

#[test]
fn a_failing_sink_is_counted_and_harmless() {
    let (log, sink) = logger(Format::Text, Level::Info);
    sink.1.set(true);
    log.event(Level::Error, 0, "lost", &[]);
    assert_eq!(log.lost(), 1);
}

#[test]
fn dates_are_right_around_leap_days_and_centuries() {
    for (unix, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (1_709_164_800, "2024-02-29T00:00:00.000Z"),
        (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
    ] {
        let mut line = String::new();
        push_time(&mut line, unix * 1000);
        assert_eq!(line, text);
    }
}
