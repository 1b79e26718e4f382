"""The lab's DNS: its Route 53 zones and its instances' names, over UDP and TCP on one port."""
import random
import re
import socketserver
import struct
import threading

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

INSTANCE_TTL = 5


class Names:
    """Looks names up in the lab's state."""

    def __init__(self, lab):
        self.lab = lab

    def records(self, name, kind):
        """([(type, ttl, [values])], is the name known or in one of our zones)"""
        if re.fullmatch(r"\d+\.\d+\.\d+\.\d+\.", name):         # a CNAME may lead to an address, with endpoint style ip
            return [("A", INSTANCE_TTL, [name[:-1]])], True
        address = self.lab.rds.address_of(name[:-1])
        if address:
            return [("A", INSTANCE_TTL, [address])], True
        with self.lab.route53.lock:
            zones = [z for z in self.lab.route53.zones.values() if name == z.name or name.endswith("." + z.name)]
            if not zones:
                return [], name.endswith(".rds.lab.")
            served = max(zones, key=lambda z: len(z.name)).served
            here = [r for k, r in served.items() if k[0] == name]
        for wanted in ("CNAME", kind):
            found = [r for r in here if r["Type"] == wanted]
            found = [r for r in found if r.get("Weight", 1) > 0] or found
            if found:
                record = random.choices(found, [r.get("Weight", 1) or 1 for r in found])[0]
                if "AliasTarget" in record:
                    return [("CNAME", 60, [record["AliasTarget"]["DNSName"]])], True
                return [(wanted, record["TTL"], [r["Value"] for r in record["ResourceRecords"]])], True
        return [], True

    def exists(self, name):
        with self.lab.route53.lock:
            return self.lab.rds.address_of(name[:-1]) is not None or \
                any(k[0] == name or k[0].endswith("." + name) for z in self.lab.route53.zones.values() for k in z.served)

    def resolve(self, name):
        """The address at the end of a name's chain, or None."""
        name = name.lower().rstrip(".") + "."
        for _ in range(16):
            found, _ = self.records(name, "A")
            if not found:
                return None
            kind, _, values = found[0]
            if kind == "A":
                return values[0]
            name = values[0].lower().rstrip(".") + "."
        return None


def answer(names, query):
    reply = dns.message.make_response(query, recursion_available=False)
    if query.opcode() != 0 or len(query.question) != 1:
        reply.set_rcode(dns.rcode.NOTIMP)
        return reply
    question = query.question[0]
    kind = dns.rdatatype.to_text(question.rdtype)
    name = question.name.to_text().lower()
    ours = False
    for _ in range(16):
        found, known = names.records(name, kind)
        ours = ours or known
        if not found:
            break
        has, ttl, values = found[0]
        if has not in (kind, "CNAME"):
            break
        reply.answer.append(dns.rrset.from_text(dns.name.from_text(name), ttl, "IN", has,
                                                *[v.rstrip(".") + "." if has == "CNAME" else v for v in values]))
        if has == kind:
            break
        name = values[0].lower().rstrip(".") + "."
    if not ours:
        reply.set_rcode(dns.rcode.REFUSED)
        return reply
    reply.flags |= dns.flags.AA
    if not reply.answer and not names.exists(name):
        reply.set_rcode(dns.rcode.NXDOMAIN)
    return reply


def _reply_to(names, wire):
    try:
        query = dns.message.from_wire(wire)
    except dns.exception.DNSException:
        return None
    try:
        return answer(names, query)
    except Exception:                                           # a record's value that is no such value
        reply = dns.message.make_response(query)
        reply.set_rcode(dns.rcode.SERVFAIL)
        return reply


class _Udp(socketserver.BaseRequestHandler):
    def handle(self):
        data, sock = self.request
        reply = _reply_to(self.server.names, data)
        if reply is not None:
            try:
                wire = reply.to_wire(max_size=1232)
            except dns.exception.TooBig:                        # the client comes again over TCP
                reply.answer.clear()
                reply.flags |= dns.flags.TC
                wire = reply.to_wire()
            sock.sendto(wire, self.client_address)


class _Tcp(socketserver.BaseRequestHandler):
    timeout = 10

    def handle(self):
        self.request.settimeout(10)
        while True:
            head = self._read(2)
            if not head:
                return
            reply = _reply_to(self.server.names, self._read(struct.unpack("!H", head)[0]))
            if reply is None:
                return
            wire = reply.to_wire()
            self.request.sendall(struct.pack("!H", len(wire)) + wire)

    def _read(self, count):
        data = b""
        while len(data) < count:
            try:
                more = self.request.recv(count - len(data))
            except OSError:
                return b""
            if not more:
                return b""
            data += more
        return data


class _UdpServer(socketserver.ThreadingUDPServer):
    daemon_threads = allow_reuse_address = True


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True


class DnsServer:
    def __init__(self, lab, host, port):
        self.names = Names(lab)
        self.servers = [_UdpServer((host, port), _Udp), _TcpServer((host, port), _Tcp)]
        for server in self.servers:
            server.names = self.names
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()
