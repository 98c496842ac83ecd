// Follows an event stream with fetch instead of EventSource, because the address of a private channel's stream is signed
// for a short time and must be asked for anew at each attempt. Names the last event it saw, so nothing is missed.

const RETRY_MS = 2000;

/** Splits text into events as it arrives. `emit` gets `{event, data, id}`. */
export function createParser(emit) {
  let rest = '';
  let event = { event: '', data: [], id: '' };
  return (text) => {
    rest += text;
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === '') {
        if (event.data.length > 0) emit({ ...event, data: event.data.join('\n') });
        event = { event: '', data: [], id: event.id };
        continue;
      }
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === 'data') event.data.push(value);
      else if (field === 'event') event.event = value;
      else if (field === 'id') event.id = value;
    }
  };
}

/**
 * Follows the stream whose address `locate()` gives (asked again for every attempt, since a signed address expires).
 * `on.event` gets each event, `on.state` gets "open", "waiting" or an Error when there is no use in going on.
 * The answer stops it.
 */
export function follow(locate, on) {
  const stopper = new AbortController();
  let lastId = '';

  async function attempt() {
    const headers = lastId ? { 'Last-Event-ID': lastId } : {};
    const response = await fetch(await locate(), { headers, signal: stopper.signal, cache: 'no-store' });
    if (!response.ok) {
      const refusal = new Error(`The hub refused to stream this channel (status ${response.status}).`);
      refusal.final = response.status < 500;
      throw refusal;
    }
    on.state('open');
    const parse = createParser((event) => {
      lastId = event.id;
      on.event(event);
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) parse(part.value);
  }

  async function run() {
    while (!stopper.signal.aborted) {
      try {
        await attempt();
      } catch (error) {
        if (stopper.signal.aborted) return;
        if (error.final) {
          on.state(error);
          return;
        }
      }
      on.state('waiting');
      await new Promise((resolve) => { setTimeout(resolve, RETRY_MS * (0.5 + Math.random())); });
    }
  }

  run();
  return () => stopper.abort();
}
