"""The lab: state, HTTP server, DNS, and what happens to one request on its way.

    with Lab(folder) as lab:
        rds = lab.client("rds")                # boto3, if it is wanted
        lab.faults.add("throttle", "DescribeDBInstances", times=3)
        ...
    assert not lab.violations
"""
import http.server
import json
import os
import socket
import sys
import threading
import time
import traceback
import urllib.parse
import uuid

from lab import models, protocol, sigv4
from lab.clock import Clock, Closed
from lab.dnsserver import DnsServer
from lab.errors import AwsError, Invalid
from lab.faults import KINDS, Faults
from lab.kms import Kms
from lab.pgserver import BINDIR, ServerError, free_port
from lab.rds import Rds
from lab.route53 import Route53
from lab.sts import ROLE, Sts
from lab.tls import Authority

SECRET_PARAMETERS = {"MasterUserPassword", "WebIdentityToken", "TdeCredentialPassword", "Policy"}
UNSIGNED = {("sts", "AssumeRoleWithWebIdentity")}
# codes that any call may answer, beside those in its model
COMMON = {"AccessDenied", "AccessDeniedException", "ExpiredToken", "ExpiredTokenException", "IncompleteSignature",
          "IncompleteSignatureException", "InternalFailure", "InvalidAction", "InvalidClientTokenId",
          "InvalidParameterCombination", "InvalidParameterValue", "InvalidSignatureException", "MissingAuthenticationToken",
          "MissingAuthenticationTokenException", "MissingParameter", "RequestExpired", "SerializationException", "ServiceUnavailable", "SignatureDoesNotMatch", "Throttling",
          "ThrottlingException", "UnrecognizedClientException", "ValidationError", "InvalidInput", "UnknownOperationException",
          "DBInstanceNotReady"}
BODY_LIMIT = 1 << 20


class _Drop(Exception):
    """Close the connection without an answer."""


class Lab:
    def __init__(self, folder, *, port=None, dns_port=None, db_port=None, host="127.0.0.1", dns_host=None, speed=1.0,
                 endpoint_style="ip", region="eu-west-1", account="123456789012", access_key="AKIALABLABLABLABLABL",
                 secret_key="lab/secret+key0123456789abcdefghijklmnop", credentials_lifetime=3600, tls=True, bindir=BINDIR,
                 zone="app.lab"):
        self.folder = os.path.abspath(folder)
        self.host, self.region, self.account = host, region, account
        self.access_key, self.secret_key = access_key, secret_key
        self.endpoint_style, self.bindir = endpoint_style, bindir
        self.port = port or free_port(host=host)
        self.dns_host = dns_host or host
        self.dns_port = dns_port or free_port(host=self.dns_host)
        self.db_port = db_port or free_port(host="127.0.0.11")
        os.makedirs(self.folder, exist_ok=True)
        os.chmod(self.folder, 0o755)
        for name in ("instances", "snapshots"):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
            os.chmod(os.path.join(self.folder, name), 0o755)
        self.clock = Clock(speed)
        self.faults = Faults()
        self.violations = []
        self.requests = []
        self.log_lock = threading.Lock()
        self._threads = set()
        self._hosts_lock = threading.Lock()
        self.stopping, self.stopped = threading.Event(), threading.Event()
        self.authority = Authority(os.path.join(self.folder, "tls")) if tls else None
        self.kms = Kms(self)
        self.sts = Sts(self, access_key, secret_key, credentials_lifetime)
        self.route53 = Route53(self)
        self.rds = Rds(self)
        self.services = {"rds": self.rds, "kms": self.kms, "sts": self.sts, "route53": self.route53}
        self.key_a, self.key_b = self.kms.create("lab-a"), self.kms.create("lab-b")
        self.zone = self.route53.add_zone(zone)
        self.hosts_file = os.path.join(self.folder, "hosts")
        self.token_file = os.path.join(self.folder, "web-identity-token")
        with open(self.token_file, "w") as f:
            f.write(self.sts.web_token)
        self._http = self._dns = self._session = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self._dns = DnsServer(self, self.dns_host, self.dns_port)
        self._http = _HttpServer((self.host, self.port), _Handler)
        self._http.lab = self
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        self.write_hosts()
        return self

    def stop(self):
        """Ends everything that was started; the folder stays."""
        if self.stopped.is_set():
            return
        self.stopped.set()
        if self._http:
            self._http.shutdown()
            self._http.server_close()
        if self._dns:
            self._dns.close()
        self.clock.close()
        for thread in list(self._threads):
            thread.join(30)
        self.rds.close()

    @property
    def endpoint(self):
        return f"http://{self.host}:{self.port}"

    def info(self):
        """What a program needs to know to use the lab; printed as one line of JSON at the start."""
        return {"endpoint": self.endpoint, "dns": f"{self.dns_host}:{self.dns_port}", "dns_host": self.dns_host,
                "dns_port": self.dns_port, "db_port": self.db_port, "access_key": self.access_key,
                "secret_key": self.secret_key,
                "region": self.region, "account": self.account, "folder": self.folder, "pid": os.getpid(),
                "ca": self.authority.bundle if self.authority else None, "hosts": self.hosts_file,
                "key_a": self.key_a, "key_b": self.key_b, "zone": self.zone.name, "zone_id": self.zone.id,
                "endpoint_style": self.endpoint_style, "engine_version": self.rds.version,
                "imds": self.endpoint, "container_uri": f"{self.endpoint}/_container/credentials",
                "container_token": self.sts.container_token, "web_identity_token_file": self.token_file,
                "role_arn": f"arn:aws:iam::{self.account}:role/{ROLE}"}

    def env(self):
        """Environment of a program that is to talk to the lab with the lasting key."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": self.access_key,
                "AWS_SECRET_ACCESS_KEY": self.secret_key,
                "AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region, "AWS_EC2_METADATA_DISABLED": "true"}

    def client(self, service, **more):
        """A boto3 client of the lab."""
        import boto3
        import botocore.config
        region = "us-east-1" if service == "route53" else self.region    # Route 53 is signed for there, wherever one is
        settings = {"endpoint_url": self.endpoint, "region_name": region, "aws_access_key_id": self.access_key,
                    "aws_secret_access_key": self.secret_key,
                    "config": botocore.config.Config(retries={"max_attempts": 0}, parameter_validation=True), **more}
        with self.log_lock:                                     # making clients isn't thread-safe; the session keeps the models
            self._session = self._session or boto3.session.Session()
            return self._session.client(service, **settings)

    def resolve(self, name):
        """The address at the end of a name's CNAME chain, as the lab's DNS answers it now; None when there is none."""
        return self._dns.names.resolve(name)

    def background(self, work):
        def run():
            try:
                work()
            except Closed:
                pass
            except Exception:
                if not self.stopped.is_set():
                    self.internal(traceback.format_exc())
            finally:
                self._threads.discard(thread)
        thread = threading.Thread(target=run, daemon=True)
        self._threads.add(thread)
        thread.start()

    def violation(self, kind, service, action, text):
        with self.log_lock:
            self.violations.append({"kind": kind, "service": service, "action": action, "text": text, "time": time.time()})

    def internal(self, text):
        """Something went wrong inside the lab: never to be overlooked."""
        print(f"lab: {text}", file=sys.stderr, flush=True)
        self.violation("lab", None, None, text)

    def write_hosts(self):
        """A hosts file with every name that the DNS answers, for programs run under nss_wrapper."""
        with self._hosts_lock:
            names = self.rds.names()
            with self.route53.lock:
                served = [k[0].rstrip(".") for z in self.route53.zones.values() for k in z.served if k[1] in ("A", "CNAME")]
            for name in served:
                address = self._dns.names.resolve(name) if self._dns else None
                if address and "*" not in name:
                    names[name] = address
            with open(self.hosts_file + ".new", "w") as f:
                f.write("127.0.0.1 localhost\n" + "".join(f"{a} {n}\n" for n, a in sorted(names.items())))
            os.replace(self.hosts_file + ".new", self.hosts_file)

    # one request of a service

    def handle(self, method, target, headers, body):
        """(status, headers, body) of the answer; _Drop when there shall be none."""
        request_id = str(uuid.uuid4())
        entry = {"time": time.time(), "service": None, "action": None, "params": {}, "status": None, "error": None,
                 "key": None, "request_id": request_id}
        with self.log_lock:
            self.requests.append(entry)
        call = _Call(self, method, target, headers, body, request_id, entry)
        return call.answer()

    # the control endpoint

    def control(self, method, path, body):
        """(status, object) for /_lab/..."""
        try:
            given = json.loads(body) if body else {}
        except ValueError:
            return 400, {"error": "the body is no JSON"}
        name = path[len("/_lab/"):].strip("/")
        if name == "faults":
            if method == "POST":
                try:
                    return 200, [self.faults.add(**one) for one in (given if isinstance(given, list) else [given])]
                except (ValueError, TypeError) as e:
                    return 400, {"error": str(e), "kinds": KINDS}
            if method == "DELETE":
                self.faults.clear()
            return 200, self.faults.list()
        if name == "violations" or name == "requests":
            kept = getattr(self, name)
            with self.log_lock:
                answer = list(kept)
                if method == "DELETE":
                    kept.clear()
            return 200, answer
        if name == "state":
            return 200, {**self.rds.state(), "hosts": self._hosts_text(),
                         "keys": {k["Arn"]: k["KeyState"] for k in self.kms.keys.values()}}
        if name == "servers" and method == "POST":
            try:
                return 200, self.rds.server_do(given["instance"], given["action"])
            except (ValueError, KeyError, AwsError, ServerError) as e:
                return 400, {"error": str(e)}
        if name == "info":
            return 200, self.info()
        if name == "resolve":
            return 200, {"address": self.resolve(given["name"])}
        if name == "advance" and method == "POST":
            self.clock.advance(float(given["seconds"]))
            return 200, {"now": self.clock.now()}
        if name == "shutdown" and method == "POST":
            self.stopping.set()                                 # whoever started the lab waits for this and stops it
            return 200, {"stopping": True}
        return 404, {"error": f"no {method} {path}"}

    def _hosts_text(self):
        with open(self.hosts_file) as f:
            return f.read()


class _Call:
    """One signed request: found out what it is, checked, carried out, answered."""

    def __init__(self, lab, method, target, headers, body, request_id, entry):
        self.lab, self.request_id, self.entry = lab, request_id, entry
        self.request = sigv4.Request(method, target, headers, body)
        self.service, self.operation, self.action, self.in_path = "unknown", None, None, {}

    def answer(self):
        try:
            self._identify()
            self.entry.update(service=self.service, action=self.action)
            fault = self.lab.faults.hit(self.service, self.action)
            if fault:
                self.entry["fault"] = fault["kind"]
                refused = self._suffer(fault)
                if refused:
                    return refused
            answer = self._carry_out(expired=bool(fault) and fault["kind"] == "expired")
            if fault and fault["kind"] == "lost":
                raise _Drop()
            return answer
        except AwsError as error:
            return self._refused(error)

    def _identify(self):
        request = self.request
        if request.path.startswith("/2013-04-01/"):
            self.service = "route53"
            self.operation, self.in_path = protocol.rest_match(models.load("route53"), request.method, request.path)
            if self.operation is None:
                raise Invalid("InvalidAction", f"no operation has {request.method} {request.path}", 404)
            self.action = self.operation.name
            return
        target = request.headers.get("x-amz-target")
        if target:
            prefix, _, self.action = target.partition(".")
            if prefix != "TrentService":
                raise Invalid("UnknownOperationException", f"unknown target {target}")
            self.service = "kms"
            if not request.headers.get("content-type", "").startswith("application/x-amz-json-1.1"):
                raise Invalid("SerializationException", f"content type {request.headers.get('content-type')}")
        else:
            self.service = "rds"
            form = self._form()
            self.action = form.get("Action")
            versions = {"2014-10-31": "rds", "2011-06-15": "sts"}
            if form.get("Version") not in versions:
                raise Invalid("InvalidAction", f"no service has version {form.get('Version')!r}")
            self.service = versions[form["Version"]]
            if not self.action:
                raise Invalid("MissingAction", "Action is missing")
        self.operation = models.operation(self.service, self.action)

    def _form(self):
        request = self.request
        if request.method == "POST":
            if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
                raise Invalid("ValidationError", f"content type {request.headers.get('content-type')}")
            text = request.body.decode("utf-8", "replace")
        else:
            text = request.query
        try:
            return protocol.parse_form(text)
        except ValueError as e:
            raise Invalid("ValidationError", f"malformed form: {e}") from None

    @property
    def is_json(self):
        return self.service == "kms"

    def _suffer(self, fault):
        """The answer when the fault comes before the work, None when the work goes on."""
        kind = fault["kind"]
        if kind == "slow":
            time.sleep(fault["seconds"])
        elif kind == "drop":
            raise _Drop()
        elif kind == "html":
            page = b"<html><body><h1>503 Service Unavailable</h1></body></html>"
            return fault["status"] or 503, {"Content-Type": "text/html"}, page
        elif kind == "throttle":
            return self._refused(AwsError(fault["code"] or ("ThrottlingException" if self.is_json else "Throttling"),
                                          "Rate exceeded", fault["status"] or 400))
        elif kind == "status":
            status = fault["status"] or 500
            return self._refused(AwsError(fault["code"] or ("ServiceUnavailable" if status == 503 else "InternalFailure"),
                                          fault["message"] or "We encountered an internal error. Please try again.", status))
        elif kind == "error":
            return self._refused(AwsError(fault["code"] or "AccessDenied", fault["message"] or "refused on request",
                                          fault["status"] or 403),
                                 known=True)
        return None

    def _carry_out(self, expired):
        caller = None
        if (self.service, self.action) not in UNSIGNED:
            region = "us-east-1" if self.service == "route53" else self.lab.region
            caller = sigv4.check(self.request, self.lab.sts.keys, self.service, region, is_json=self.is_json,
                                 clock=self.lab.clock.now())
            self.entry["key"] = caller.access
        if expired:
            raise AwsError("ExpiredTokenException" if self.is_json else "ExpiredToken",
                           "The security token included in the request is expired", 400 if self.is_json else 403)
        params = self._params()
        self.entry["params"] = {k: "***" if k in SECRET_PARAMETERS else _plain(v) for k, v in params.items()}
        if self.operation.input_shape is not None:
            models.check_input(self.operation.input_shape, params)
        method = getattr(self.lab.services[self.service], self.action, None)
        if method is None:
            raise AwsError("InternalFailure", f"the lab doesn't do {self.action}", 500)
        result = method(params, caller) or {}
        return self._accepted(result)

    def _params(self):
        if self.service == "route53":
            query = dict((k, v) for k, v in urllib.parse.parse_qsl(self.request.query, keep_blank_values=True)
                         if not k.startswith("X-Amz-"))
            return protocol.rest_params(self.operation, self.in_path, query, self.request.body)
        if self.is_json:
            params = protocol.json_params(self.request.body)
            return params
        return protocol.query_params(self.operation.input_shape, self._form())

    def _headers(self, kind):
        return {"Content-Type": kind, "x-amzn-RequestId": self.request_id}

    def _accepted(self, result):
        extra, status = {}, 200
        try:
            if self.service == "route53":
                kind, body, extra = protocol.rest_answer(self.operation, result, self.request_id)
                status = self.operation.http.get("responseCode", 200)
            elif self.is_json:
                kind, body = protocol.json_answer(self.operation, result, self.request_id)
            else:
                kind, body = protocol.query_answer(self.operation, result, self.request_id)
        except (KeyError, TypeError) as e:
            self.lab.violation("answer", self.service, self.action, f"doesn't fit the model: {e}")
            raise AwsError("InternalFailure", f"the lab's answer doesn't fit the model: {e}", 500) from None
        headers = {**self._headers(kind), **extra}
        differs = protocol.read_back(self.operation, status, headers, body, result)
        if differs:
            self.lab.violation("answer", self.service, self.action, differs)
        self.entry["status"] = status
        return status, headers, body

    def _refused(self, error, known=False):
        self.entry.update(status=error.status, error=error.code)
        if isinstance(error, Invalid):
            self.lab.violation("request", self.service, self.action, f"{error.code}: {error.message}")
        if self.is_json:
            kind, body = protocol.json_error(error, self.request_id)
        else:
            service = self.service if self.service in self.lab.services else "rds"
            space = models.load(service).metadata.get("xmlNamespace", "https://route53.amazonaws.com/doc/2013-04-01/")
            kind, body = protocol.xml_error(space, error, self.request_id)
        headers = self._headers(kind)
        if self.operation is not None:
            codes = {e.error_code for e in self.operation.error_shapes} | {e.name for e in self.operation.error_shapes} | COMMON
            differs = protocol.read_back_error(self.operation, error.status, headers, body, error)
            if error.code not in codes and not known:
                differs = f"{self.action} has no error {error.code}"
            if differs:
                self.lab.violation("answer", self.service, self.action, differs)
        return error.status, headers, body


def _plain(value):
    """JSON-able, with secrets masked wherever they are."""
    if isinstance(value, dict):
        return {k: "***" if k in SECRET_PARAMETERS else _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, socket.timeout)):
            self.lab.internal(traceback.format_exc())


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "lab"
    sys_version = ""
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024

    def log_message(self, *_):
        pass

    def _handle(self):
        lab = self.server.lab
        if self.headers.get("Transfer-Encoding"):
            return self._send(411, {}, b"")
        length = int(self.headers.get("Content-Length") or 0)
        if length > BODY_LIMIT:
            return self._send(413, {}, b"")
        body = self.rfile.read(length)
        headers = {}
        for name, value in self.headers.items():
            name = name.lower()
            headers[name] = headers[name] + "," + value.strip() if name in headers else value.strip()
        path = self.path.partition("?")[0]
        try:
            if path.startswith("/_lab/"):
                self._send_json(*lab.control(self.command, path, body))
            elif path.startswith("/latest/"):
                self._plain_service("imds", path, lambda: lab.sts.imds(self.command, path, headers))
            elif path == "/_container/credentials":
                self._plain_service("container", path, lambda: lab.sts.container(self.command, headers))
            else:
                self._send(*lab.handle(self.command, self.path, headers, body))
        except _Drop:
            self.close_connection = True
        except (ConnectionError, socket.timeout):
            self.close_connection = True
        except Exception as e:
            lab.internal(traceback.format_exc())
            self._send_json(500, {"error": str(e)})

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _handle

    def _plain_service(self, service, path, work):
        lab = self.server.lab
        fault = lab.faults.hit(service, path)
        if fault and fault["kind"] == "slow":
            time.sleep(fault["seconds"])
        elif fault and fault["kind"] == "drop":
            raise _Drop()
        elif fault:
            return self._send(fault["status"] or 500, {}, b"")
        status, answer = work()
        with lab.log_lock:
            lab.requests.append({"time": time.time(), "service": service, "action": f"{self.command} {path}", "params": {},
                                 "status": status, "error": None, "key": None, "request_id": None})
        if isinstance(answer, dict):
            return self._send_json(status, answer)
        return self._send(status, {"Content-Type": "text/plain"}, answer.encode())

    def _send_json(self, status, answer):
        self._send(status, {"Content-Type": "application/json"}, json.dumps(answer, default=str).encode())

    def _send(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if status in (411, 413):
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()
