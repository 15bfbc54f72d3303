#!/usr/bin/python3
"""A spice-gtk client without a window. It prints what happens to it, one event a line, and obeys what it reads:
`key SCANCODE` presses and releases a key, `mouse` asks for the server's mouse mode, `status` prints the open channels, `quit`
or the end of input ends it.

Debian's packages: gir1.2-spiceclientglib-2.0, python3-gi. SPICE_DEBUG=1 adds the library's own log on stderr."""

import argparse
import sys
import threading

import gi

gi.require_version("SpiceClientGLib", "2.0")
from gi.repository import GLib, GObject, SpiceClientGLib as Spice

# SPICE_MOUSE_MODE_SERVER
SERVER_MODE = 1


def say(text):
    print(text, flush=True)


class Client:
    def __init__(self, properties):
        self.loop = GLib.MainLoop()
        self.open = {}
        # Sound, smartcards and USB would need more of the machine and show nothing more.
        quiet = {"enable-audio": False, "enable-smartcard": False, "enable-usbredir": False}
        self.session = Spice.Session(**quiet, **properties)
        on(self.session, "channel-new", lambda _, channel: self.channel_new(channel))
        on(self.session, "channel-destroy", lambda _, channel: self.closed(channel))
        on(self.session, "notify::migration-state", lambda *_: self.migration_state())
        on(self.session, "disconnected", lambda _: say("disconnected"))

    def run(self):
        threading.Thread(target=self.read, daemon=True).start()
        Spice.Session.connect(self.session)
        self.loop.run()

    def channel_new(self, channel):
        on(channel, "channel-event", lambda _, event: self.channel_event(channel, event))
        if isinstance(channel, Spice.MainChannel):
            on(channel, "migration-started", lambda _, session: say(f"migrates to {place_of_session(session)}"))
            on(channel, "notify::agent-connected", lambda *_: say(f"agent connected: {channel.props.agent_connected}"))
            on(channel, "main-mouse-update", lambda _: say(f"mouse mode {channel.props.mouse_mode}"))
        if isinstance(channel, Spice.DisplayChannel):
            created = lambda _, kind, width, height, *rest: say(f"{name(channel)}: surface {width}x{height}")
            on(channel, "display-primary-create", created)
            on(channel, "display-primary-destroy", lambda _: say(f"{name(channel)}: no surface"))
            on(channel, "display-invalidate", lambda _, *area: say(f"{name(channel)}: drawn {area}"))
        if isinstance(channel, Spice.InputsChannel):
            on(channel, "inputs-modifiers", lambda _: say(f"{name(channel)}: modifiers"))
        # The session connects the main channel itself.
        if not isinstance(channel, Spice.MainChannel):
            Spice.Channel.connect(channel)

    def channel_event(self, channel, event):
        if event == Spice.ChannelEvent.OPENED:
            self.open[name(channel)] = channel
            self.channels()
            return
        error = Spice.Channel.get_error(channel)
        reason = f" ({error.message})" if error else ""
        say(f"{name(channel)}: {event.value_nick}{reason}")
        self.closed(channel)

    def closed(self, channel):
        # A channel of the same name may have taken its place.
        if self.open.get(name(channel)) is channel:
            del self.open[name(channel)]
            self.channels()

    def migration_state(self):
        say(f"migration: {self.session.props.migration_state.value_nick}")
        self.channels()

    def channels(self):
        """Where each channel is connected now. In a migration it changes its socket without an event of its own."""
        places = (f"{name} at {place_of_socket(channel)}" for name, channel in sorted(self.open.items()))
        say("channels: " + (", ".join(places) or "none"))

    def read(self):
        for line in sys.stdin:
            GLib.idle_add(self.command, line.split())
        GLib.idle_add(self.command, ["quit"])

    def command(self, words):
        if words == ["quit"]:
            self.loop.quit()
        elif words == ["status"]:
            self.channels()
        elif words == ["mouse"] and "main 0" in self.open:
            Spice.MainChannel.request_mouse_mode(self.open["main 0"], SERVER_MODE)
        elif words[:1] == ["key"] and "inputs 0" in self.open:
            # Two messages, not one KEY_SCANCODE, which says less plainly what is pressed.
            Spice.InputsChannel.key_press(self.open["inputs 0"], int(words[1], 0))
            Spice.InputsChannel.key_release(self.open["inputs 0"], int(words[1], 0))
        else:
            say(f"cannot: {' '.join(words)}")


def on(instance, signal, handler):
    # Session and Channel have a `connect` of their own, which hides GObject's.
    GObject.Object.connect(instance, signal, handler)


def name(channel):
    return f"{Spice.Channel.type_to_string(channel.props.channel_type)} {channel.props.channel_id}"


def place_of_socket(channel):
    try:
        address = channel.props.socket.get_remote_address()
        return f"{address.get_address().to_string()}:{address.get_port()}"
    except (AttributeError, GLib.Error):
        return "nowhere"


def place_of_session(session):
    places = [f"port {session.props.port}"] if session.props.port not in (None, "0") else []
    places += [f"TLS port {session.props.tls_port}"] if session.props.tls_port not in (None, "0") else []
    return f"{session.props.host} {' '.join(places)}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("host", "port", "tls-port", "password", "ca-file", "cert-subject"):
        parser.add_argument(f"--{option}")
    arguments = vars(parser.parse_args()).items()
    GLib.log_writer_default_set_use_stderr(True)
    Client({key: value for key, value in arguments if value is not None}).run()


main()
