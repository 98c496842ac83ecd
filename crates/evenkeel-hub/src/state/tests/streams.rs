use super::*;

impl World {
    /// Opens a stream on the channels with the right signatures.
    pub(super) fn stream(
        &mut self,
        channels: &[&str],
        last: Option<&str>,
    ) -> Result<(u32, Connected), Refusal> {
        let auths: Vec<String> = channels.iter().map(|channel| format!("key:{channel}")).collect();
        let channels: Vec<StreamChannel<'_>> = channels
            .iter()
            .zip(&auths)
            .map(|(name, auth)| StreamChannel { name, auth: Some(auth) })
            .collect();
        self.stream_as("key", &channels, last)
    }

    fn stream_as(
        &mut self,
        key: &str,
        channels: &[StreamChannel<'_>],
        last_event_id: Option<&str>,
    ) -> Result<(u32, Connected), Refusal> {
        self.next_conn += 1;
        let conn = self.next_conn;
        let request = StreamConnect { key, channels, last_event_id, conn };
        let connected = self.hub.connect_stream(self.now, &request, &Echo, &mut self.sent)?;
        let socket_id = self.hub.socket_id(connected.session).unwrap().to_string();
        self.sessions.insert(conn, (connected.session, socket_id));
        Ok((conn, connected))
    }
}

/// The last id among events, as an `EventSource` would know it.
fn last_id(events: &[String]) -> Option<String> {
    let mut ids = events.iter().map(|event| event.split_once('|').unwrap().0);
    ids.rfind(|id| !id.is_empty()).map(str::to_owned)
}

#[test]
fn a_new_stream_is_acknowledged_and_then_live() {
    let mut world = World::new();
    world.publish("cache-c", "old");
    world.publish("news", "missed by all");
    let (conn, connected) = world.stream(&["news", "private-p", "cache-c", "news"], None).unwrap();
    assert_eq!((connected.replayed, connected.gaps), (0, 0));
    let got = world.take(conn);
    let names: Vec<String> = got.iter().map(|text| short(text)).collect();
    assert!(names[0].starts_with("connection_established"));
    assert_eq!(names[1..4], ["subscription_succeeded"; 3]);
    assert_eq!(names[4..], ["e old", r#"caught_up {"replayed":0,"complete":true}"#]);
    assert!(last_id(&got).is_some());
    world.publish("private-p", "now");
    assert_eq!(world.take_short(conn), ["e now"]);
    assert_eq!(world.hub.snapshot().apps[0].streams, 1);
    world.say(conn, r#"{"event":"client-x","channel":"private-p"}"#);
    world.assert_stream_refused(conn);
    world.disconnect(conn);
    assert_eq!(world.hub.snapshot().apps[0].streams, 0);
}

impl World {
    /// A stream has no way to send; should the server pass something on all the same, it is refused.
    fn assert_stream_refused(&mut self, conn: u32) {
        assert_eq!(self.take(conn).len(), 1);
        assert_eq!(self.refusals(), [(Refusal::ClientEventChannel, 1)]);
    }
}

#[test]
fn a_frame_is_shared_by_all_streams_and_by_all_sockets() {
    let mut world = World::new();
    for _ in 0..10 {
        world.stream(&["news"], None).unwrap();
        let conn = world.connect();
        world.subscribe(conn, "news");
    }
    let before = ENCODINGS.get();
    world.publish("news", "x");
    assert_eq!(ENCODINGS.get() - before, 2, "once for each transport");
}

#[test]
fn what_was_missed_is_sent_in_the_order_of_publication() {
    let mut world = World::new();
    let (conn, _) = world.stream(&["a", "private-b"], None).unwrap();
    world.publish("a", "1");
    let last = last_id(&world.take(conn)).unwrap();
    world.disconnect(conn);
    for (channel, data) in [("private-b", "2"), ("a", "3"), ("other", "x"), ("private-b", "4")] {
        world.publish(channel, data);
    }
    let (again, connected) = world.stream(&["a", "private-b"], Some(&last)).unwrap();
    assert_eq!((connected.replayed, connected.gaps), (3, 0));
    let got = world.take_short(again);
    assert_eq!(got[3..], ["e 2", "e 3", "e 4", r#"caught_up {"replayed":3,"complete":true}"#]);
}

#[test]
fn client_events_are_recovered_too() {
    let mut world = World::new();
    let sender = world.connect();
    world.subscribe(sender, "private-p");
    let (conn, _) = world.stream(&["private-p"], None).unwrap();
    let last = last_id(&world.take(conn)).unwrap();
    world.disconnect(conn);
    world.say(sender, r#"{"event":"client-x","channel":"private-p","data":"1"}"#);
    let (again, connected) = world.stream(&["private-p"], Some(&last)).unwrap();
    assert_eq!(connected.replayed, 1);
    assert!(world.take_short(again).contains(&"client-x 1".to_owned()));
}

#[test]
fn ids_that_are_not_ours_are_a_gap_in_every_channel() {
    let mut world = World::new();
    world.add_app("2", "key2");
    let public = [StreamChannel { name: "a", auth: None }];
    let (foreign, _) = world.stream_as("key2", &public, None).unwrap();
    let foreign = last_id(&world.take(foreign)).unwrap();
    let (own, _) = world.stream(&["a"], None).unwrap();
    let own = last_id(&world.take(own)).unwrap();
    let future = format!("{}-999", own.split_once('-').unwrap().0);
    for last in ["", "x", "7", foreign.as_str(), future.as_str(), "0000000000000000-0"] {
        let (conn, connected) = world.stream(&["a", "b"], Some(last)).unwrap();
        assert_eq!((connected.replayed, connected.gaps), (0, 2), "{last}");
        let got = world.take(conn);
        assert_eq!(got.iter().filter(|text| text.contains("evenkeel:gap")).count(), 2);
        assert!(got.last().unwrap().contains(r#"\"complete\":false"#));
        world.disconnect(conn);
    }
    assert_eq!(world.stream(&["a", "b"], Some(&own)).unwrap().1.gaps, 0);
}

#[test]
fn without_history_only_what_was_missed_is_a_gap() {
    let mut world = World::with(|limits| limits.history_count = 0);
    let keeper = world.connect();
    world.subscribe(keeper, "quiet");
    world.subscribe(keeper, "busy");
    let (conn, _) = world.stream(&["quiet", "busy"], None).unwrap();
    let last = last_id(&world.take(conn)).unwrap();
    world.disconnect(conn);
    let (conn, connected) = world.stream(&["quiet", "busy"], Some(&last)).unwrap();
    assert_eq!(connected.gaps, 0);
    world.disconnect(conn);
    world.publish("busy", "x");
    assert_eq!(world.stream(&["quiet", "busy"], Some(&last)).unwrap().1.gaps, 1);
    // A channel that nobody was in is not remembered: it may have had events.
    world.publish("nobody", "x");
    assert_eq!(world.stream(&["nobody"], Some(&last)).unwrap().1.gaps, 1);
    let sessions = world.hub.session_count();
    assert_eq!(sessions, 3);
}

#[test]
fn i50_every_refusal_of_a_stream() {
    let mut world = World::with(|limits| {
        limits.max_channels_per_connection = 2;
        limits.max_connections = 1;
    });
    let channel = |name, auth| StreamChannel { name, auth };
    let cases: [(&[StreamChannel<'_>], Refusal); 7] = [
        (&[], Refusal::NoChannels),
        (&[channel("a b", None)], Refusal::InvalidChannel),
        (&[channel("presence-r", Some("key:presence-r"))], Refusal::NotStreamable),
        (&[channel("#server-to-user-1", Some("key:#server-to-user-1"))], Refusal::NotStreamable),
        (&[channel("a", None), channel("private-p", None)], Refusal::Unauthorized),
        (&[channel("private-p", Some("key:private-q"))], Refusal::Unauthorized),
        (&[channel("a", None), channel("b", None), channel("c", None)], Refusal::TooManyChannels),
    ];
    for (channels, refusal) in cases {
        assert_eq!(world.stream_as("key", channels, None), Err(refusal));
        assert!(world.refusals().iter().any(|(counted, _)| *counted == refusal));
    }
    assert_eq!(world.stream_as("nobody", &[], None), Err(Refusal::UnknownApp));
    assert!(
        world.sent.messages.is_empty() && world.sent.closed.is_empty(),
        "the server answers these over HTTP"
    );
    assert_eq!((world.hub.session_count(), world.hub.channels.len()), (0, 0));
    world.stream(&["a", "b"], None).unwrap();
    assert_eq!(world.stream(&["a"], None), Err(Refusal::OverCapacity));

    let mut world = World::with(|limits| limits.authorization_deadline = 1_000);
    assert_eq!(world.stream(&["a"], None), Err(Refusal::Unauthorized));
    world.stream(&["a", "private-p"], None).unwrap();
    world.now += 1_000;
    world.tick();
    assert_eq!(world.hub.session_count(), 1);
}
