# SPDX-License-Identifier: MIT
"""Private Redis servers, and the channel that one test publishes on."""

import json
import os
import shutil
import signal
import uuid
from dataclasses import dataclass
from typing import Optional

import redis

from .process import Port, end, spawn, wait_for_server
from .wait import wait_until

NAMESPACE = uuid.UUID("955b55d8-887c-58e3-8f23-0b6cb409ec02")
DEFAULT_CHANNEL = "interviewly:prompt-ready"


def prompt_id(interview, source, prompt):
    return str(uuid.uuid5(NAMESPACE, f"{interview.lower()}\n{source}\n{prompt}"))


def frame(payload):
    """n8n renders its expression `==={{ ... }}\\n` with two of the signs left in front."""
    return b"==" + payload + b"\n"


@dataclass(frozen=True)
class Message:
    interview: str
    prompt: str
    source: Optional[str] = "rag"  # None leaves the field out

    @property
    def id(self):
        return prompt_id(self.interview, self.source or "rag", self.prompt)

    def framed(self):
        """As n8n's JSON.stringify writes it: compact, and nothing but quotes and controls escaped."""
        fields = {"interview_id": self.interview, "enhanced_prompt": self.prompt}
        if self.source is not None:
            fields["source"] = self.source
        return frame(json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode())


class RedisServer:
    def __init__(self, folder, *options, host=None, address="127.0.0.1"):
        """`host`: a FarHost to run on."""
        self.folder = folder
        self._host = host
        self.address = host.address if host else address
        self.socket = os.path.join(folder, "redis.sock")
        self.log_path = os.path.join(folder, "redis.log")
        self._options = options
        self._port = Port()
        self._process = None
        self.admin = redis.Redis(unix_socket_path=self.socket)
        self.start()

    @property
    def port(self):
        return self._port.number

    @property
    def url(self):
        return f"redis://{self.address}:{self.port}"

    def start(self):
        program = shutil.which("redis-server")
        if program is None:
            raise RuntimeError("needs redis-server (Debian package redis-server)")
        with open(self.log_path, "ab") as log:
            command = [*self._host.command(), program] if self._host else [program]
            self._process = spawn([*command, "--bind", self.address, *self.listening(), "--unixsocket", self.socket,
                                   "--save", "", "--appendonly", "no", "--dir", self.folder, *self._options],
                                  stdout=log, stderr=log)
        wait_for_server(self._process, self._answers, "Redis", self.log_path)

    def client(self, patience_s):
        """Another connection: an answer is there within so many seconds, or it fails."""
        return redis.Redis(unix_socket_path=self.socket, socket_timeout=patience_s)

    def listening(self):
        return ["--port", str(self.port)]

    def _answers(self):
        try:
            return self.admin.ping()
        except redis.AuthenticationError:
            return True
        except (redis.ConnectionError, redis.BusyLoadingError):
            return False

    def log_in(self, password):
        """For a server that was just given a password."""
        self.admin.close()
        self.admin = redis.Redis(unix_socket_path=self.socket, password=password)

    def freeze(self):
        """Stopped like a machine that swaps: the kernel still accepts for it, and nobody answers."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self._process.send_signal(signal.SIGCONT)

    def is_running(self):
        return self._process is not None

    def is_replica(self):
        try:
            return self.admin.role()[0] == b"slave"
        except redis.ConnectionError:  # a Sentinel that demotes it closes all its connections
            return False

    def stop(self, with_signal=signal.SIGTERM):
        if self._process is not None:
            end(self._process, with_signal)
            self._process = None

    def close(self):
        self.admin.close()
        if self._process is not None:
            self.thaw()
        self.stop()
        self._port.release()

    def subscribers(self, channel):
        try:
            return self.admin.pubsub_numsub(channel)[0][1]
        except redis.ConnectionError:
            return 0

    def listeners(self):
        """The connections that have subscribed to anything: one whose client was just killed is still counted."""
        try:
            return {client["id"] for client in self.admin.client_list(_type="pubsub")}
        except redis.ConnectionError:
            return set()


class Channel:
    """A channel of one test, and all that was published there."""

    def __init__(self, server, name=None):
        self.server = server
        self.name = name or f"{DEFAULT_CHANNEL}:{uuid.uuid4().hex[:12]}"
        self.marker = "zq" + uuid.uuid4().hex  # stands in every prompt, and so in no log
        self.published = []

    def prompt(self, text="Tell me about a project you are proud of."):
        return f"{self.marker} {text}"

    def message(self, interview, text=None, source="rag"):
        return Message(interview, self.prompt(text) if text is not None else self.prompt(), source)

    def publish(self, interview, text=None, source="rag", listeners=1):
        """Publishes a prompt that carries the marker; returns the message."""
        message = self.message(interview, text, source)
        self.publish_message(message, listeners)
        return message

    def publish_message(self, message, listeners=1):
        self.published.append(message.prompt)
        self.publish_raw(message.framed(), listeners)

    def add(self, client, payload):
        """One command that sends it; client: a connection, or a pipeline."""
        client.publish(self.name, payload)

    def length(self, _client):
        """Messages that Redis keeps."""
        return 0

    def publish_raw(self, payload, listeners=1):
        """Bytes as they are. Someone must listen, unless `listeners` is 0: else the test would wait in vain."""
        heard = self.server.admin.publish(self.name, payload)
        assert heard >= listeners, f"{heard} listeners on {self.name}, not {listeners}"

    def publish_burst(self, payloads):
        """Messages or bytes, in one go."""
        pipeline = self.server.admin.pipeline(transaction=False)
        for payload in payloads:
            if isinstance(payload, Message):
                self.published.append(payload.prompt)
                payload = payload.framed()
            self.add(pipeline, payload)
        heard = pipeline.execute()
        assert all(count >= 1 for count in heard), f"{heard.count(0)} of {len(heard)} messages had no listener"

    def subscribers(self):
        return self.server.subscribers(self.name)

    def wait_subscribers(self, count, timeout=10.0):
        wait_until(lambda: self.subscribers() == count, f"{count} subscribers of {self.name}", timeout,
                   seen=self.subscribers)


def burst(channel, database, count=50):
    """Messages for as many new interviews, in one go."""
    messages = [channel.message(interview) for interview in database.interviews(count)]
    channel.publish_burst(messages)
    return messages
