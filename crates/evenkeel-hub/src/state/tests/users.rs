use super::*;

fn watchlist(events: &str) -> String {
    format!(r#"watchlist_events {{"events":[{events}]}}"#)
}

#[test]
fn signing_in_is_confirmed_with_the_data_as_signed() {
    let mut world = World::new();
    let conn = world.connect();
    world.sign_in(conn, r#"{"id" : "7"}"#);
    assert_eq!(
        world.take(conn),
        [r#"{"event":"pusher:signin_success","data":{"user_data":"{\"id\" : \"7\"}"}}"#]
    );
    world.sign_in(conn, r#"{"id":"7"}"#);
    assert_eq!(world.take(conn).len(), 1, "again as the same user is fine");
    world.sign_in(conn, r#"{"id":"8"}"#);
    world.assert_refused(conn, Refusal::AlreadySignedIn);
}

#[test]
fn i50_every_refusal_of_a_sign_in() {
    let mut world = World::new();
    let conn = world.connect();
    for (data, refusal) in [
        ("nonsense".to_owned(), Refusal::InvalidUserData),
        (r#"{"id":7}"#.to_owned(), Refusal::InvalidUserData),
        (r#"{"id":""}"#.to_owned(), Refusal::InvalidUserData),
        (format!(r#"{{"id":"{}"}}"#, "a".repeat(129)), Refusal::UserIdTooLong),
        (format!(r#"{{"id":"1","watchlist":["{}"]}}"#, "a".repeat(129)), Refusal::InvalidUserData),
        (format!(r#"{{"id":"1","user_info":"{}"}}"#, "a".repeat(1_023)), Refusal::UserInfoTooLarge),
    ] {
        world.sign_in(conn, &data);
        world.assert_refused(conn, refusal);
    }
    world.say(conn, r#"{"event":"pusher:signin","data":{"auth":"key:no","user_data":"{\"id\":\"1\"}"}}"#);
    world.assert_refused(conn, Refusal::UserUnauthorized);
    let mut world = World::with(|limits| limits.sign_in = false);
    let conn = world.connect();
    world.sign_in(conn, r#"{"id":"1"}"#);
    world.assert_refused(conn, Refusal::SignInDisabled);
}

#[test]
fn watchers_hear_the_present_state_and_then_changes() {
    let mut world = World::new();
    let [watcher, a1, a2, b] = [(); 4].map(|()| world.connect());
    world.sign_in(b, r#"{"id":"b"}"#);
    world.sign_in(watcher, r#"{"id":"w","watchlist":["a","b","a"]}"#);
    assert_eq!(
        world.take_short(watcher)[1..],
        [watchlist(r#"{"name":"online","user_ids":["b"]},{"name":"offline","user_ids":["a"]}"#)]
    );
    world.sign_in(a1, r#"{"id":"a"}"#);
    world.sign_in(a2, r#"{"id":"a"}"#);
    assert_eq!(world.take_short(watcher), [watchlist(r#"{"name":"online","user_ids":["a"]}"#)]);
    world.disconnect(a1);
    assert!(world.take(watcher).is_empty());
    world.disconnect(a2);
    assert_eq!(world.take_short(watcher), [watchlist(r#"{"name":"offline","user_ids":["a"]}"#)]);
    world.sign_in(watcher, r#"{"id":"w"}"#);
    world.take(watcher);
    world.disconnect(b);
    assert!(world.take(watcher).is_empty(), "signing in again renewed the watchlist");
    world.disconnect(watcher);
    assert!(world.hub.apps[0].users.is_empty());
    assert_eq!(world.hub.snapshot().apps[0].users, 0);
}

#[test]
fn a_watchlist_that_is_too_long_is_cut_and_said_so() {
    for (length, cut) in [(100, false), (101, true)] {
        let mut world = World::new();
        let conn = world.connect();
        let ids: Vec<String> = (0..length).map(|n| n.to_string()).collect();
        world.sign_in(conn, &format!(r#"{{"id":"w","watchlist":{}}}"#, serde_json::json!(ids)));
        let got = world.take(conn);
        assert_eq!(got.iter().any(|text| text.contains(r#""code":4302"#)), cut);
        let events = json(json(got.last().unwrap())["data"].as_str().unwrap());
        assert_eq!(events["events"][0]["user_ids"].as_array().unwrap().len(), 100);
        world.disconnect(conn);
        assert!(world.hub.apps[0].users.is_empty());
    }
}

#[test]
fn terminating_a_user_closes_all_its_connections_and_no_others() {
    let mut world = World::new();
    let [a1, a2, b, anonymous] = [(); 4].map(|()| world.connect());
    world.sign_in(a1, r#"{"id":"a"}"#);
    world.sign_in(a2, r#"{"id":"a"}"#);
    world.sign_in(b, r#"{"id":"b","watchlist":["a"]}"#);
    world.join(a1, "presence-r", "a");
    world.join(b, "presence-r", "b");
    world.take(b);
    assert_eq!(world.hub.terminate_user(world.now, world.app, "a", &mut world.sent), 2);
    assert_eq!((world.sent.closed.get(&a1), world.sent.closed.get(&a2)), (Some(&4009), Some(&4009)));
    assert_eq!((world.sent.closed.get(&b), world.sent.closed.get(&anonymous)), (None, None));
    let offline = watchlist(r#"{"name":"offline","user_ids":["a"]}"#);
    assert_eq!(world.take_short(b), [r#"member_removed {"user_id":"a"}"#.to_owned(), offline]);
    assert_eq!(world.hub.terminate_user(world.now, world.app, "a", &mut world.sent), 0);
    assert_eq!(world.hub.terminate_user(world.now, world.app, "nobody", &mut world.sent), 0);
}
