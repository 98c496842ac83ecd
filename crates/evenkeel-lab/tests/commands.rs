//! Every command that needs nothing but this repository's programs measures something and says how to repeat it.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

/// Runs the lab with a lock of its own: a test need not wait for a measurement.
fn lab(name: &str, words: &str) -> Output {
    run(Command::new(env!("CARGO_BIN_EXE_evenkeel-lab")), name, words)
}

fn run(mut command: Command, name: &str, words: &str) -> Output {
    let lock = std::env::temp_dir().join(format!("evenkeel-lab-{}-{name}.lock", std::process::id()));
    let output = command.args(words.split(' ')).env("EVENKEEL_LAB_LOCK", &lock).output().unwrap();
    // Other commands are refused before they would take the lock.
    let _ = std::fs::remove_file(lock);
    output
}

/// What it prints when all is well.
fn measured(name: &str, words: &str) -> String {
    checked(lab(name, words), words)
}

fn checked(output: Output, words: &str) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}: {error}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("machine: Linux"), "{text}");
    assert!(text.contains(&format!("evenkeel-lab -- {words}\n")), "{text}");
    text
}

/// The figures in the row of `server`.
fn row<'a>(text: &'a str, server: &str) -> Vec<&'a str> {
    let rows =
        text.lines().map(|line| line.split('|').map(str::trim).filter(|c| !c.is_empty()).collect::<Vec<_>>());
    rows.into_iter()
        .find(|cells| cells.first() == Some(&server))
        .unwrap_or_else(|| panic!("no {server}: {text}"))
}

#[test]
fn two_servers_take_turns() {
    let text = measured("pair", "echo pair callbacks/epoll async/poll --conns 5 --secs 0.3");
    for server in ["callbacks/epoll", "async/poll"] {
        let cost: f64 = row(&text, server)[1].replace(',', "").parse().unwrap();
        assert!(cost > 0.0, "{text}");
    }
    assert!(text.contains("callbacks/epoll / async/poll: CPU "), "{text}");
}

#[test]
fn every_model_echoes() {
    let servers = "callbacks/select own-buffer/epoll threads";
    let text = measured(
        "all",
        &format!("echo all {servers} --against async/epoll --conns 3 --secs 0.3 --size 70000"),
    );
    for server in servers.split(' ') {
        assert!(row(&text, server)[1].contains('('), "{text}");
    }
}

#[test]
fn what_a_server_cannot_hold_is_left_out() {
    let text = measured("idle", "idle callbacks/select callbacks/epoll --conns 1200");
    assert_eq!(row(&text, "callbacks/select")[1], "-");
    assert!(row(&text, "callbacks/epoll")[1].parse::<f64>().is_ok(), "{text}");
}

#[test]
fn busy_connections_are_measured_among_idle_ones() {
    let text = measured("active", "active callbacks/poll --idle 300 --busy 5 --secs 0.3");
    assert_eq!(row(&text, "callbacks/poll")[1], "300");
}

/// System calls are left out where nobody may count them, which is said in the cells.
#[test]
fn features_of_the_ring_are_measured() {
    let own = "--without multishot-recv,quiet-sends --calls callbacks/io_uring";
    let text = measured("ring", &format!("ring --conns 5 --secs 0.3 {own}"));
    for feature in ["the same", "without multishot-recv", "without quiet-sends"] {
        let cells = row(&text, feature);
        assert!(cells.len() == 4 && cells[1..].iter().all(|cell| cell.contains('(')), "{text}");
    }
    assert!(row(&text, "async/io_uring over async/epoll")[1].contains('('), "{text}");
    assert_eq!(row(&text, "callbacks/io_uring").len(), 2, "{text}");
}

#[test]
fn small_operations_are_measured() {
    let text = measured("micro", "micro --ops yield-among,timer-alone --rounds 1 --peers=");
    for figure in ["yield among 100 tasks", "timer armed and dropped"] {
        assert!(row(&text, figure)[2].parse::<f64>().unwrap() > 0.0, "{text}");
    }
}

/// Builds the hub, unless that was done.
#[test]
fn subscribers_of_the_hub_are_measured() {
    let text = measured("hub", "hub --subscribers 200 --messages 4");
    for subscriber in ["WebSocket", "event stream"] {
        let cells = row(&text, subscriber);
        assert!(["127", "128"].contains(&cells[6]), "{text}");
        assert!(cells[2].trim_end_matches(" !").replace(',', "").parse::<f64>().unwrap() > 0.0, "{text}");
    }
}

/// More of them than a descriptor table allows. A loop that is behind leaves what it is given in the acceptor's table for a
/// while, for which there is room.
#[test]
fn a_hub_holds_more_than_a_table_of_descriptors() {
    let mut limited = Command::new("sh");
    limited.args(["-c", r#"ulimit -n 1700 && exec "$0" "$@""#, env!("CARGO_BIN_EXE_evenkeel-lab")]);
    let words = "hub-hold --subscribers 2000 --loops 2 --messages 2";
    let text = checked(run(limited, "hold", words), words);
    for subscriber in ["WebSocket", "event stream"] {
        let cells = row(&text, subscriber);
        // 1,000 each, one publisher, and one who asks.
        assert_eq!(cells[1], "1001 1001", "{text}");
        let tables: Vec<usize> = cells[2].split(' ').map(|count| count.parse().unwrap()).collect();
        assert!(tables.len() == 2 && tables.iter().all(|count| (1001..1300).contains(count)), "{text}");
    }
}

#[test]
fn a_hub_on_several_loops_takes_turns_with_one_loop() {
    let text = measured(
        "hub-loops",
        "hub-loops --loops 2 --subscribers 200 --messages 4 --few 4 --secs 0.5 --backend epoll",
    );
    let tables: Vec<&str> = text.split("Messages to 4 subscribers").collect();
    assert_eq!(tables.len(), 2, "{text}");
    assert_eq!((row(tables[0], "2").len(), row(tables[1], "2").len()), (7, 5), "{text}");
    assert!(row(tables[1], "2")[2].contains('('), "{text}");
}

#[test]
fn models_are_plotted() {
    let folder = std::env::temp_dir().join(format!("evenkeel-lab-models-{}", std::process::id()));
    let words = format!("models --conns 3 --busy 1 --rounds 1 --secs 0.3 --out {}", folder.display());
    let text = measured("models", &words);
    assert!(row(&text, "thread each")[1].parse::<f64>().unwrap() > 0.0, "{text}");
    let plot = std::fs::read_to_string(folder.join("models.svg")).unwrap();
    assert!(plot.matches("<polyline").count() >= 10, "a line for each model and workload");
    assert!(std::fs::read_to_string(folder.join("models.md")).unwrap().contains("thread each"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_spread_over_loops_is_measured_and_plotted() {
    let folder = std::env::temp_dir().join(format!("evenkeel-lab-spread-{}", std::process::id()));
    let words = format!("spread --conns 60 --loops 3 --share acceptor --out {}", folder.display());
    let text = measured("spread", &words);
    assert_eq!(row(&text, "acceptor")[4..], ["20", "20", "20.0", "0.000"], "{text}");
    assert!(std::fs::read_to_string(folder.join("spread.svg")).unwrap().contains("<polyline"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn several_loops_take_turns_with_one() {
    let text = measured("loops", "loops --loops 2 --conns 5 --backend epoll --secs 0.3");
    for model in ["callbacks/epoll", "async/epoll"] {
        assert!(row(&text, model)[3].contains('('), "{text}");
    }
}

#[test]
fn a_wrong_name_lists_the_right_ones() {
    let output = lab("wrong", "echo pair callbacks/epol raw");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("epoll-lt"), "{said}");
    let said = String::from_utf8(lab("wrong", "echo pair tokyo raw").stderr).unwrap();
    assert!(said.contains("tokio, "), "{said}");
}

#[test]
fn loops_with_tables_of_their_own_hold_connections() {
    let text = measured("tables", "tables --secs 0.2 --loops 2 --conns 300");
    assert!(text.contains("hold 600 connections"), "{text}");
    assert!(row(&text, "CPU of a send and a recv, no loop")[3].contains('('), "{text}");
}
