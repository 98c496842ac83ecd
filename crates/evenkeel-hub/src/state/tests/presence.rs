use super::*;

#[test]
fn a_user_comes_with_the_first_connection_and_goes_with_the_last() {
    let mut world = World::new();
    let [watcher, a, b] = [(); 3].map(|()| world.connect());
    world.join(watcher, "presence-r", "w");
    world.take(watcher);
    let data = r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#;
    world.subscribe_as(a, "key", "presence-r", Some(data));
    world.subscribe_as(b, "key", "presence-r", Some(data));
    let added = r#"member_added {"user_id":"10","user_info":{"name":"Mr. Channels"}}"#;
    assert_eq!(world.take_short(watcher), [added]);
    let ack = world.take_short(b);
    assert_eq!(
        ack,
        [
            r#"subscription_succeeded {"presence":{"ids":["w","10"],"hash":{"w":{},"10":{"name":"Mr. Channels"}},"count":2}}"#
        ]
    );
    world.disconnect(a);
    assert!(world.take(watcher).is_empty());
    world.unsubscribe(b, "presence-r");
    assert_eq!(world.take_short(watcher), [r#"member_removed {"user_id":"10"}"#]);
    assert_eq!(world.hub.presence_users(world.app, "presence-r").unwrap(), ["w"]);
}

#[test]
fn i50_wrong_channel_data_is_refused() {
    let mut world = World::new();
    let conn = world.connect();
    let mut refused = |data: &str, refusal| {
        world.subscribe_as(conn, "key", "presence-r", Some(data));
        world.assert_refused(conn, refusal);
    };
    refused("nonsense", Refusal::InvalidChannelData);
    refused("{}", Refusal::InvalidChannelData);
    refused(r#"{"user_id":""}"#, Refusal::InvalidChannelData);
    refused(r#"{"user_id":1.5}"#, Refusal::InvalidChannelData);
    refused(&format!(r#"{{"user_id":"{}"}}"#, "é".repeat(129)), Refusal::UserIdTooLong);
    refused(&format!(r#"{{"user_id":"1","user_info":"{}"}}"#, "a".repeat(1_023)), Refusal::UserInfoTooLarge);
    assert_eq!(world.hub.channels.len(), 0, "a refused subscription makes no channel");
    let data = format!(r#"{{"user_id":"{}","user_info":"{}"}}"#, "é".repeat(128), "a".repeat(1_022));
    world.subscribe_as(conn, "key", "presence-r", Some(&data));
    assert!(world.take_short(conn)[0].starts_with("subscription_succeeded"));
}

#[test]
fn a_full_channel_takes_more_connections_but_no_more_users() {
    let mut world = World::new();
    for user in 0..100 {
        let conn = world.connect();
        world.join(conn, "presence-r", &user.to_string());
        assert!(world.take_short(conn)[0].starts_with("subscription_succeeded"));
    }
    let (known, new) = (world.connect(), world.connect());
    world.join(known, "presence-r", "5");
    assert!(world.take_short(known)[0].starts_with("subscription_succeeded"));
    world.join(new, "presence-r", "100");
    world.assert_refused(new, Refusal::PresenceFull);
}

#[test]
fn who_is_signed_in_joins_without_channel_data() {
    let mut world = World::new();
    let conn = world.connect();
    world.subscribe(conn, "presence-r");
    world.assert_refused(conn, Refusal::NotSignedIn);
    world.sign_in(conn, r#"{"id":"7","user_info":{"n":1}}"#);
    world.take(conn);
    world.subscribe(conn, "presence-r");
    let ack = r#"subscription_succeeded {"presence":{"ids":["7"],"hash":{"7":{"n":1}},"count":1}}"#;
    assert_eq!(world.take_short(conn), [ack]);
}
