//! States that are none: refused with an error, or as consistent as any hub.

use super::*;

fn state(seed: u64) -> (Vec<u8>, Vec<AppConfig>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = twins::small_world();
    for _ in 0..300 {
        twins::act(&mut world, &mut rng);
    }
    (world.hub.hand_over(world.now).unwrap(), configs(&world))
}

/// Changes one value somewhere.
fn mutate(value: &mut Value, rng: &mut fastrand::Rng) {
    match value {
        Value::Array(list) if !list.is_empty() => {
            let (at, other) = (rng.usize(0..list.len()), rng.usize(0..list.len()));
            match rng.u8(0..40) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                2 => list.swap(at, other),
                3 => list.insert(at, Value::Null),
                _ => mutate(&mut list[at], rng),
            }
        }
        Value::Object(fields) if !fields.is_empty() => {
            let name = rng.choice(fields.keys()).unwrap().clone();
            match rng.u8(0..20) {
                0 => drop(fields.remove(&name)),
                _ => mutate(fields.get_mut(&name).unwrap(), rng),
            }
        }
        Value::Number(number) => {
            let n = number.as_u64().unwrap_or(7);
            let near = [
                n.wrapping_add(1),
                n.wrapping_sub(1),
                n ^ 1,
                0,
                1,
                2,
                u64::from(u32::MAX),
                u64::MAX,
                1 << 63,
            ];
            *value = match rng.usize(0..12) {
                choice @ 0..9 => near[choice].into(),
                9 => i64::MIN.into(),
                10 => (-1).into(),
                _ => 0.5.into(),
            };
        }
        Value::String(text) => {
            let texts = ["", "u1", "presence-r", "#server-to-user-u2", "{", "1", "a b", "\u{0}"];
            match rng.usize(0..10) {
                choice @ 0..8 => *text = texts[choice].to_owned(),
                8 => text.push('x'),
                _ => drop(text.pop()),
            }
        }
        Value::Bool(flag) => *flag = !*flag,
        _ => *value = rng.u32(0..4).into(),
    }
}

#[test]
fn i50_a_changed_state_is_refused_or_consistent() {
    let mut rng = fastrand::Rng::with_seed(50);
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..20 {
        let (bytes, configs) = state(seed);
        assert!(try_take_over::<Readable>(&bytes, &configs, &mut rng));
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        for _ in 0..250 {
            let mut changed = value.clone();
            for _ in 0..rng.usize(1..3) {
                mutate(&mut changed, &mut rng);
            }
            let taken = try_take_over::<Readable>(changed.to_string().as_bytes(), &configs, &mut rng);
            *if taken { &mut accepted } else { &mut refused } += 1;
        }
    }
    assert!(accepted > 500 && refused > 500, "{accepted} and {refused}");
}

#[test]
fn i50_changed_bytes_are_refused_or_consistent() {
    let mut rng = fastrand::Rng::with_seed(51);
    for seed in 0..10 {
        let (bytes, configs) = state(seed);
        for _ in 0..200 {
            let mut changed = bytes.clone();
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(0..changed.len());
                match rng.u8(0..4) {
                    0 => changed[at] = rng.u8(..),
                    1 => changed[at] = rng.u8(b'0'..=b'9'),
                    2 => drop(changed.remove(at)),
                    _ => changed.insert(at, *rng.choice(b"0123456789,[]{}\"").unwrap()),
                }
            }
            try_take_over::<Readable>(&changed, &configs, &mut rng);
        }
        let end = rng.usize(0..bytes.len());
        assert!(!try_take_over::<Readable>(&bytes[..end], &configs, &mut rng), "half a state is none");
    }
}

#[test]
fn i50_what_is_wrong_is_named() {
    let (bytes, configs) = state(1);
    let refuse = |bytes: &[u8]| fresh::<Readable>(&configs).take_over(0, bytes).unwrap_err();
    assert!(matches!(refuse(b""), HandoverError::Malformed(_)));
    assert!(matches!(refuse(b"{}"), HandoverError::Malformed(why) if why.contains("version")));
    let newer = br#"{"version":2,"whatever":[]}"#;
    assert_eq!(refuse(newer), HandoverError::Version { found: 2, readable: 1 });
    let mut value: Value = serde_json::from_slice(&bytes).unwrap();
    let position = value["apps"][0]["sequence"].take();
    value["apps"][0]["sequence"] = 0.into();
    assert!(matches!(refuse(value.to_string().as_bytes()), HandoverError::Inconsistent(_)));
    value["apps"][0]["sequence"] = position;
    value["apps"][1]["id"] = value["apps"][0]["id"].clone();
    let twice = HandoverError::Inconsistent("an application is there twice");
    assert_eq!(refuse(value.to_string().as_bytes()), twice);
    let mut served = World::new();
    served.connect();
    assert_eq!(served.hub.take_over(0, &bytes).unwrap_err(), HandoverError::NotFresh);
    assert_eq!(served.hub.session_count(), 1);
}

/// The reader of today with a state of tomorrow, and the other way round.
#[test]
fn i50_fields_that_are_new_or_missing_do_no_harm() {
    let (bytes, configs) = state(2);
    let mut value: Value = serde_json::from_slice(&bytes).unwrap();
    let whole = fresh::<Readable>(&configs).take_over(0, &bytes).unwrap();
    for list in ["apps", "sessions", "channels"] {
        for entry in value[list].as_array_mut().unwrap().iter_mut().filter(|entry| !entry.is_null()) {
            entry["tomorrow"] = serde_json::json!({ "a": [1, "b"] });
        }
    }
    value["tomorrow"] = 1.into();
    value["refusals"]["refused_tomorrow"] = 5.into();
    let taken = fresh::<Readable>(&configs).take_over(0, value.to_string().as_bytes()).unwrap();
    assert_eq!((taken.sessions, taken.channels), (whole.sessions, whole.channels));
    for app in value["apps"].as_array_mut().unwrap() {
        for name in ["counters", "refusals", "message_rate", "publishes", "kept_online", "deadlines"] {
            app.as_object_mut().unwrap().remove(name);
        }
    }
    assert!(fresh::<Readable>(&configs).take_over(0, value.to_string().as_bytes()).is_ok());
}
