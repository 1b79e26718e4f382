"""The three wire protocols: a request's bytes to parameters, an answer's parameters to bytes.

Reading and writing are our own, walking the models' shapes; every answer is then read back with botocore's parser and
compared, so that neither we nor the program under test can agree on a mistake.
"""
import calendar
import datetime
import json
import re
import time
import urllib.parse
import xml.etree.ElementTree as ET
from xml.sax.saxutils import escape

import botocore.parsers

from lab.errors import Invalid

UTC = datetime.timezone.utc


def stamp(seconds):
    """A time as the lab keeps it (seconds) as the models want it, with the milliseconds that XML carries."""
    return datetime.datetime.fromtimestamp(round(seconds, 3), UTC)


def iso(when):
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


# --- Query: form parameters in --------------------------------------------------------------------------------------

def parse_form(text):
    pairs = urllib.parse.parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text))
    form = dict(pairs)
    if len(form) != len(pairs):
        raise Invalid("ValidationError", "a parameter is given twice")
    return form


def query_params(shape, form):
    """The nested parameters of flattened Query names; a name that the shape doesn't have is Invalid."""
    form = {k: v for k, v in form.items() if k not in ("Action", "Version") and not k.startswith("X-Amz-")}
    used = set()
    params = _from_form(shape, "", form, used) if shape else {}
    unknown = sorted(set(form) - used)
    if unknown:
        raise Invalid("ValidationError", f"unknown parameter {', '.join(unknown)}")
    return params


def _from_form(shape, prefix, form, used):
    if shape.type_name == "structure":
        value = {}
        for name, member in shape.members.items():
            inner = (prefix + "." if prefix else "") + member.serialization.get("name", name)
            if any(k == inner or k.startswith(inner + ".") for k in form):
                value[name] = _from_form(member, inner, form, used)
        return value
    if shape.type_name == "list":
        if form.get(prefix) == "":
            used.add(prefix)
            return []
        base = prefix if shape.serialization.get("flattened") else \
            prefix + "." + shape.member.serialization.get("name", "member")
        numbers = sorted({int(m.group(1)) for k in form if (m := re.match(re.escape(base) + r"\.(\d+)(\.|$)", k))})
        if numbers != list(range(1, len(numbers) + 1)):
            raise Invalid("ValidationError", f"the numbers of {base} don't run from 1: {numbers}")
        return [_from_form(shape.member, f"{base}.{n}", form, used) for n in numbers]
    if prefix not in form:
        return {}                                               # found later as an unknown name
    used.add(prefix)
    return scalar(shape, form[prefix], prefix)


def scalar(shape, text, where):
    kind = shape.type_name
    try:
        if kind in ("integer", "long"):
            return int(text)
        if kind in ("float", "double"):
            return float(text)
        if kind == "boolean":
            return {"true": True, "false": False}[text]
        if kind == "timestamp":
            return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except (ValueError, KeyError):
        raise Invalid("ValidationError", f"{where}: {text!r} is no {kind}") from None
    return text


# --- XML out ----------------------------------------------------------------------------------------------------------

def _text(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime.datetime):
        return iso(value)
    return escape(str(value), {"\r": "&#13;"})


def to_xml(shape, value, tag):
    if shape.type_name == "structure":
        unknown = set(value) - set(shape.members)
        if unknown:
            raise KeyError(f"{shape.name} has no {', '.join(sorted(unknown))}")
        inner = "".join(to_xml(shape.members[k], v, shape.members[k].serialization.get("name", k))
                        for k, v in value.items() if v is not None)
        return f"<{tag}>{inner}</{tag}>"
    if shape.type_name == "list":
        if shape.serialization.get("flattened"):
            return "".join(to_xml(shape.member, v, tag) for v in value)
        name = shape.member.serialization.get("name", "member")
        return f"<{tag}>" + "".join(to_xml(shape.member, v, name) for v in value) + f"</{tag}>"
    return f"<{tag}>{_text(value)}</{tag}>"


def query_answer(operation, result, request_id):
    namespace = operation.service_model.metadata["xmlNamespace"]
    body = f'<{operation.name}Response xmlns="{namespace}">'
    if operation.output_shape is not None:
        body += to_xml(operation.output_shape, result, operation.output_shape.serialization["resultWrapper"])
    body += f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{operation.name}Response>"
    return "text/xml", ('<?xml version="1.0" encoding="UTF-8"?>\n' + body).encode()


def xml_error(namespace, error, request_id):
    kind = "Sender" if error.status < 500 else "Receiver"
    return "text/xml", (f'<?xml version="1.0" encoding="UTF-8"?>\n<ErrorResponse xmlns="{namespace}"><Error><Type>{kind}'
                        f"</Type><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
                        f"<RequestId>{request_id}</RequestId></ErrorResponse>").encode()


# --- JSON 1.1 ---------------------------------------------------------------------------------------------------------

def json_params(body):
    try:
        params = json.loads(body or b"{}")
        if not isinstance(params, dict):
            raise ValueError()
    except ValueError:
        raise Invalid("SerializationException", "the body is no JSON object") from None
    return params


def json_answer(operation, result, request_id):
    def plain(shape, value):
        if shape.type_name == "structure":
            return {k: plain(shape.members[k], v) for k, v in value.items() if v is not None}
        if shape.type_name == "list":
            return [plain(shape.member, v) for v in value]
        if shape.type_name == "timestamp":
            return calendar.timegm(value.utctimetuple()) + value.microsecond / 1e6
        return value
    body = plain(operation.output_shape, result) if operation.output_shape else None
    return "application/x-amz-json-1.1", json.dumps(body).encode() if body is not None else b""


def json_error(error, request_id):
    return "application/x-amz-json-1.1", json.dumps({"__type": error.code, "message": error.message}).encode()


# --- REST-XML ---------------------------------------------------------------------------------------------------------

def rest_match(model, method, path):
    """The operation of a REST request and the parameters in its path, or (None, {})."""
    for name in model.operation_names:
        operation = model.operation_model(name)
        template = operation.http["requestUri"].split("?")[0]
        pattern = re.sub(r"\\\{(\w+)\\?\+?\\\}", r"(?P<\1>[^/]+)", re.escape(template))
        match = re.fullmatch(pattern + "/?", path)
        if match and operation.http["method"] == method:
            return operation, {k: urllib.parse.unquote(v) for k, v in match.groupdict().items()}
    return None, {}


def rest_params(operation, in_path, query, body):
    shape = operation.input_shape
    params, unread = {}, dict(query)
    for name, member in shape.members.items():
        place, wire = member.serialization.get("location"), member.serialization.get("name", name)
        if place == "uri" and wire in in_path:
            params[name] = in_path[wire]
        elif place == "querystring" and wire in unread:
            params[name] = scalar(member, unread.pop(wire), wire)
    if unread:
        raise Invalid("InvalidInput", f"unknown query parameter {', '.join(sorted(unread))}")
    if body:
        params.update(_xml_body(operation, shape, body))
    for name in ("Id", "HostedZoneId"):                         # clients may send /hostedzone/Z1 where Z1 is meant
        if name in params:
            params[name] = params[name].split("/")[-1]
    return params


def _xml_body(operation, shape, body):
    try:
        root = ET.fromstring(body)
    except ET.ParseError as e:
        raise Invalid("InvalidInput", f"the body is no XML: {e}") from None
    wanted = shape.serialization.get("name", shape.name)
    space = (shape.serialization.get("xmlNamespace") or operation.service_model.metadata.get("xmlNamespace") or {})
    space = space.get("uri") if isinstance(space, dict) else space
    if root.tag != f"{{{space}}}{wanted}":
        raise Invalid("InvalidInput", f"the body is {root.tag}, not {wanted} of {space}")
    return _from_xml(shape, root)


def _from_xml(shape, node):
    if shape.type_name == "structure":
        names = {m.serialization.get("name", k): (k, m) for k, m in shape.members.items()
                 if not m.serialization.get("location")}
        value = {}
        for child in node:
            tag = child.tag.split("}")[-1]
            if tag not in names:
                raise Invalid("InvalidInput", f"unknown element {tag} in {shape.name}")
            name, member = names[tag]
            if member.type_name == "list" and member.serialization.get("flattened"):
                value.setdefault(name, []).append(_from_xml(member.member, child))
            else:
                value[name] = _from_xml(member, child)
        return value
    if shape.type_name == "list":
        wanted = shape.member.serialization.get("name", "member")
        for child in node:
            if child.tag.split("}")[-1] != wanted:
                raise Invalid("InvalidInput", f"element {child.tag} in a list of {wanted}")
        return [_from_xml(shape.member, child) for child in node]
    return scalar(shape, node.text or "", shape.name)


def rest_answer(operation, result, request_id):
    """Content type, body and the headers that the model puts members into."""
    shape = operation.output_shape
    headers, rest = {}, {}
    for name, value in result.items():
        place = shape.members[name].serialization
        if place.get("location") == "header":
            headers[place["name"]] = str(value)
        else:
            rest[name] = value
    space = operation.service_model.metadata.get("xmlNamespace") or "https://route53.amazonaws.com/doc/2013-04-01/"
    body = to_xml(shape, rest, shape.name.replace("Response", "") + "Response")
    body = body.replace(">", f' xmlns="{space}">', 1)
    return "text/xml", ('<?xml version="1.0"?>\n' + body).encode(), headers


# --- reading back -----------------------------------------------------------------------------------------------------

def read_back(operation, status, headers, body, meant):
    """None when botocore reads from the answer exactly what was meant, else what differs."""
    parser = botocore.parsers.create_parser(operation.service_model.metadata["protocol"])
    seen = parser.parse({"status_code": status, "headers": headers, "body": body}, operation.output_shape)
    seen.pop("ResponseMetadata", None)
    return _difference(_normal(meant or {}), _normal(seen), operation.name)


def read_back_error(operation, status, headers, body, error):
    parser = botocore.parsers.create_parser(operation.service_model.metadata["protocol"])
    seen = parser.parse({"status_code": status, "headers": headers, "body": body}, operation.output_shape)
    got = seen.get("Error", {})
    if got.get("Code") != error.code or got.get("Message") != error.message:
        return f"{operation.name}: error {error.code} is read as {got}"
    return None


def _normal(value):
    if isinstance(value, dict):
        return {k: _normal(v) for k, v in value.items() if v is not None}
    if isinstance(value, (list, tuple)):
        return [_normal(v) for v in value]
    if isinstance(value, datetime.datetime):
        return round(value.timestamp(), 3)
    return value


def _difference(meant, seen, where):
    if isinstance(meant, dict) and isinstance(seen, dict):
        for key in sorted(set(meant) | set(seen)):
            if key not in meant or key not in seen:
                if not (meant.get(key) or seen.get(key)):       # an empty flattened list leaves no trace
                    continue
                return f"{where}.{key} is {'not read' if key in meant else 'read but not meant'}"
            found = _difference(meant[key], seen[key], f"{where}.{key}")
            if found:
                return found
        return None
    if isinstance(meant, list) and isinstance(seen, list) and len(meant) == len(seen):
        for n, (a, b) in enumerate(zip(meant, seen)):
            found = _difference(a, b, f"{where}[{n}]")
            if found:
                return found
        return None
    return None if meant == seen and type(meant) is type(seen) else f"{where} is {meant!r} and is read as {seen!r}"


def http_date(seconds):
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds))
