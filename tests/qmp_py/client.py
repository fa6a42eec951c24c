"""Drives a running dcd with qemu.qmp as it comes from PyPI: client, legacy client and qmp-shell.

Usage: client.py unix-socket host:port

Exits 0 only if everything is as QEMU's own tools expect it; prints what was done.
"""

import ast
import asyncio
import json
import os
import signal
import subprocess
import sys

from qemu.qmp import EventListener, ExecuteError, QMPClient
from qemu.qmp.legacy import QEMUMonitorProtocol

TAG = "5be13bce-ae34-4a77-b6c3-16df975fcf1a"
OTHER_TAG = "6be13bce-ae34-4a77-b6c3-16df975fcf1a"
LEN = 64 << 20
EVENTS = ["OFFERED", "ACCEPTED", "RELEASE_REQUESTED", "RELEASED"]

# Whatever hangs is a failure, not a wait.
signal.alarm(120)


def expect(what, is_so):
    """Prints what was tried; ends where it is not so."""
    print(("ok   " if is_so else "FAIL ") + what, flush=True)
    if not is_so:
        sys.exit(1)


def event_name(suffix):
    return "CXL_DYNAMIC_CAPACITY_" + suffix


def backend(name, tag):
    return {"qom-type": "memory-backend-ram", "id": name, "size": LEN, "share": True, "tag": tag}


def add(tag, offset):
    return {
        "path": "cxl-vmem0", "host-id": 0, "selection-policy": "prescriptive", "region": 0, "tag": tag,
        "extents": [{"offset": offset, "len": LEN}],
    }


def release(tag):
    return {"path": "cxl-vmem0", "host-id": 0, "removal-policy": "tag-based", "region": 0, "tag": tag}


async def refused(client, command, arguments, error_class, words):
    try:
        await client.execute(command, arguments)
    except ExecuteError as error:
        is_so = error.error_class == error_class and words in str(error)
        return expect(f"{command} is refused: {error.error_class}: {str(error)}", is_so)
    return expect(f"{command} is refused", False)


async def queries(client):
    version = await client.execute("query-version")
    expect(f"the version is {version['package']}", version == client.greeting.QMP.version)
    commands = {command["name"] for command in await client.execute("query-commands")}
    schema = await client.execute("query-qmp-schema")
    introspected = {info["name"] for info in schema if info["meta-type"] == "command"}
    expect(f"{len(commands)} commands, all of them in {len(schema)} entries of the schema", commands == introspected)
    expect("it runs", (await client.execute("query-status"))["running"] is True)
    for query in ["query-name", "query-uuid", "query-target", "query-cpus-fast", "query-memdev"]:
        print("    ", query, await client.execute(query))
    monitor = await client.execute("human-monitor-command", {"command-line": "info status"})
    expect("the monitor for people answers", monitor == "VM status: running\r\n")


async def errors(client):
    await refused(client, "no-such-command", {}, "CommandNotFound", "no-such-command")
    await refused(client, "object-add", backend("tm9", "no tag"), "GenericError", "tag")
    await refused(client, "object-add", backend("tm9", TAG) | {"seal": True}, "GenericError", "'seal' is unexpected")
    await refused(client, "object-del", {}, "GenericError", "'id' is missing")
    await refused(client, "qom-get", {"path": "nowhere", "property": "x"}, "DeviceNotFound", "nowhere")


async def events(client, address):
    """An add and a release, heard by the client that asks and by another one."""
    other = QMPClient("other")
    await other.connect(address)
    heard = EventListener([event_name(suffix) for suffix in EVENTS])
    with client.listener(event_name("ACCEPTED")) as accepted, client.listener(event_name("RELEASED")) as released:
        with other.listen(heard):
            await client.execute("object-add", backend("tm0", TAG))
            await client.execute("cxl-add-dynamic-capacity", add(TAG, 0))
            event = await asyncio.wait_for(accepted.get(), 20)
            expect("capacity is accepted", event["data"]["extents"] == [{"offset": 0, "len": LEN}])
            expect("an event has a time", event["timestamp"]["seconds"] > 0)
            await client.execute("cxl-release-dynamic-capacity", release(TAG))
            event = await asyncio.wait_for(released.get(), 20)
            expect("capacity is released", event["data"]["tag"] == TAG and event["data"]["reason"] == "host")
            names = [(await asyncio.wait_for(heard.get(), 20))["event"] for _ in EVENTS]
            expect("another client hears all four in order", names == [event_name(suffix) for suffix in EVENTS])
    await other.disconnect()


async def many_requests(client):
    answers = await asyncio.gather(*(client.execute("query-status") for _ in range(200)))
    expect("200 requests at once are answered", all(answer["running"] for answer in answers))


async def asynchronous(address):
    client = QMPClient("test")
    await client.connect(address)
    expect("greeting and negotiation", client.greeting.QMP.capabilities == [])
    await queries(client)
    await errors(client)
    await events(client, address)
    await many_requests(client)
    await client.disconnect()


def legacy(address):
    """The older, synchronous client, as scripts of QEMU's tree use it."""
    with QEMUMonitorProtocol(address) as client:
        client.connect()
        expect("the legacy client is answered", client.cmd("query-status")["status"] == "running")
        answer = client.cmd_obj({"execute": "stop", "id": "legacy"})
        expect("an id comes back", answer == {"return": {}, "id": "legacy"})
        expect("the legacy client hears events", client.pull_event(wait=20)["event"] == "STOP")
        client.cmd("cont")
        expect("events wait to be fetched", [e["event"] for e in client.get_events(wait=20)] == ["RESUME"])


def shell(arguments, lines):
    """What qmp-shell prints when these lines are typed."""
    command = [os.path.join(os.path.dirname(sys.executable), "qmp-shell"), *arguments]
    typed = "".join(line + "\n" for line in lines)
    done = subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60, check=False)
    expect(f"{' '.join(['qmp-shell', *arguments[:-1]])} ends well", done.returncode == 0 and not done.stderr)
    return done.stdout


def qmp_shell(address):
    lines = [
        "query-status",
        f"object-add qom-type=memory-backend-ram id=tm1 size={LEN} share=true tag={OTHER_TAG}",
        "cxl-add-dynamic-capacity path=cxl-vmem0 host-id=0 selection-policy=prescriptive region=0 "
        f"tag={OTHER_TAG} extents=[{{'offset':{LEN},'len':{LEN}}}]",
        "object-del",
        "",
    ]
    printed = shell([address], lines)
    said = [line.removeprefix("(QEMU) ") for line in printed.splitlines()]
    expect("it connects", said[:2] == ["Welcome to the QMP low-level shell!", "Connected to QEMU 11.1.0"])
    answers = [json.loads(line) for line in said if line.startswith('{"')]
    expect("a query is answered", answers[0] == {"return": {"running": True, "status": "running"}})
    expect("an object is made and capacity is added", answers[1:3] == [{"return": {}}, {"return": {}}])
    expect("a refusal is shown", answers[3]["error"]["desc"] == "Parameter 'id' is missing")
    shown = [ast.literal_eval(line)["event"] for line in said if line.startswith("{'")]
    expect(f"events are shown: {', '.join(shown)}", shown[:1] == [event_name("OFFERED")])


def hmp_shell(address):
    printed = shell(["-H", address], ["info status", "info version", "help", "info cxl", "info mtree -f", "nonsense"])
    for part in ["VM status: running", "11.1.0 (dcd ", "help|? [command]", "cxl-vmem0: /machine/peripheral/cxl-vmem0",
                 "FlatView #0", "unknown command: 'nonsense'"]:
        expect(f"the monitor for people prints: {part}", part in printed)


def verbose_shell(address):
    printed = shell(["-v", "-p", address], ["query-version"])
    expect("a pretty answer is shown", '"package": "dcd ' in printed)


def main():
    unix, tcp = sys.argv[1], sys.argv[2]
    asyncio.run(asynchronous(unix))
    host, port = tcp.rsplit(":", 1)
    asyncio.run(asynchronous_tcp((host, int(port))))
    legacy(unix)
    qmp_shell(unix)
    hmp_shell(unix)
    verbose_shell(tcp)
    asyncio.run(the_end(unix))


async def asynchronous_tcp(address):
    client = QMPClient("tcp")
    await client.connect(address)
    expect("it is answered by TCP", (await client.execute("query-target"))["arch"] == "x86_64")
    await client.disconnect()


async def the_end(address):
    client = QMPClient("end")
    await client.connect(address)
    with client.listener("SHUTDOWN") as shutdown:
        expect("quit is answered", await client.execute("quit") == {})
        expect("the end is announced", (await shutdown.get())["data"]["reason"] == "host-qmp-quit")
    try:
        await client.disconnect()
    except EOFError:
        # The program is gone first: that is what was asked for.
        pass


main()
