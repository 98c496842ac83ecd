// The console's form that publishes one event.

import { request } from './request.js';

/** The answer fills in the form for a channel. */
export function startPublishing(byId) {
  const result = byId('publish-result');
  const button = byId('publish').querySelector('button');

  function say(kind, text) {
    result.className = kind;
    result.textContent = text;
  }

  byId('publish').addEventListener('submit', async (submit) => {
    submit.preventDefault();
    const body = {
      app: byId('publish-app').value,
      channel: byId('publish-channel').value.trim(),
      event: byId('publish-event').value.trim(),
      data: byId('publish-data').value,
    };
    button.disabled = true;
    say('muted', 'Publishing…');
    try {
      await request('POST', 'console/publish', body);
      say('good', `Published “${body.event}” on ${body.channel} at ${new Date().toLocaleTimeString([], { hour12: false })}.`);
    } catch (error) {
      say('bad', error.message);
    } finally {
      button.disabled = false;
    }
  });

  return {
    address(app, channel) {
      byId('publish-app').value = app;
      byId('publish-channel').value = channel;
    },
  };
}
