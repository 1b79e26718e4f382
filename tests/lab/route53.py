"""Hosted zones. A change is listed at once, is PENDING for a while, and is answered by the DNS when it is INSYNC."""
import random
import re
import string
import threading

from lab.errors import AwsError
from lab.protocol import stamp

PENDING_SECONDS = 1.0                          # real ones take up to 60; at speed 1


def _id():
    return "".join(random.choices(string.ascii_uppercase + string.digits, k=20))


def absolute(name):
    return name.lower().rstrip(".") + "."


def reversed_labels(name):
    return ".".join(reversed(absolute(name)[:-1].split("."))) + "."


def escaped(name):
    return absolute(name).replace("*", "\\052")


class Zone:
    def __init__(self, name, reference, comment, private):
        self.id, self.name, self.reference = "Z" + _id(), absolute(name), reference
        self.comment, self.private = comment, private
        soa = "ns-1.awsdns-lab. awsdns-hostmaster.amazon.com. 1 7200 900 1209600 60"
        self.records = {(self.name, "NS", None): {"Name": self.name, "Type": "NS", "TTL": 172800,
                                                  "ResourceRecords": [{"Value": "ns-1.awsdns-lab."}]},
                        (self.name, "SOA", None): {"Name": self.name, "Type": "SOA", "TTL": 900,
                                                   "ResourceRecords": [{"Value": soa}]}}
        self.served = dict(self.records)       # what the DNS answers
        self.version = self.served_version = 0

    def described(self):
        config = {"PrivateZone": self.private, **({"Comment": self.comment} if self.comment else {})}
        return {"Id": f"/hostedzone/{self.id}", "Name": escaped(self.name), "CallerReference": self.reference,
                "Config": config, "ResourceRecordSetCount": len(self.records)}


class Route53:
    def __init__(self, lab):
        self.lab = lab
        self.lock = threading.RLock()
        self.zones = {}                        # id -> Zone
        self.changes = {}                      # id -> ChangeInfo

    def add_zone(self, name, reference=None, comment="", private=False):
        with self.lock:
            zone = Zone(name, reference or _id(), comment, private)
            self.zones[zone.id] = zone
            return zone

    def _zone(self, zone_id):
        zone = self.zones.get(zone_id)
        if zone is None:
            raise AwsError("NoSuchHostedZone", f"No hosted zone found with ID: {zone_id}", 404)
        return zone

    def _submit(self, done, comment=None):
        """A change that becomes INSYNC by and by; done is called then."""
        change = {"Id": f"/change/C{_id()}", "Status": "PENDING", "SubmittedAt": stamp(self.lab.clock.now())}
        if comment:
            change["Comment"] = comment
        self.changes[change["Id"].split("/")[-1]] = change

        def settle():
            self.lab.clock.sleep(PENDING_SECONDS)
            with self.lock:
                done()
                change["Status"] = "INSYNC"
            self.lab.write_hosts()
        self.lab.background(settle)
        return dict(change)

    # calls

    def CreateHostedZone(self, p, caller):
        with self.lock:
            if any(z.reference == p["CallerReference"] for z in self.zones.values()):
                raise AwsError("HostedZoneAlreadyExists", "A hosted zone has already been created with the specified caller "
                               "reference.", 409)
            config = p.get("HostedZoneConfig", {})
            zone = self.add_zone(p["Name"], p["CallerReference"], config.get("Comment", ""), config.get("PrivateZone", False))
            return {"HostedZone": zone.described(), "ChangeInfo": self._submit(lambda: None),
                    "DelegationSet": {"NameServers": ["ns-1.awsdns-lab"]},
                    "Location": f"https://route53.amazonaws.com/2013-04-01/hostedzone/{zone.id}"}

    def GetHostedZone(self, p, caller):
        with self.lock:
            return {"HostedZone": self._zone(p["Id"]).described(), "DelegationSet": {"NameServers": ["ns-1.awsdns-lab"]}}

    def ListHostedZones(self, p, caller):
        with self.lock:
            zones = sorted(self.zones.values(), key=lambda z: z.id)
            start = [z for z in zones if z.id >= p.get("Marker", "")]
            limit = _limit(p)
            answer = {"HostedZones": [z.described() for z in start[:limit]], "IsTruncated": len(start) > limit,
                      "MaxItems": str(limit)}
            if "Marker" in p:
                answer["Marker"] = p["Marker"]
            if answer["IsTruncated"]:
                answer["NextMarker"] = start[limit].id
            return answer

    def ListHostedZonesByName(self, p, caller):
        with self.lock:
            key = lambda z: (reversed_labels(z.name), z.id)
            zones = sorted(self.zones.values(), key=key)
            if "HostedZoneId" in p and "DNSName" not in p:
                raise AwsError("InvalidInput", "HostedZoneId may be given only together with DNSName")
            if "DNSName" in p:
                first = (reversed_labels(p["DNSName"]), p.get("HostedZoneId", "").split("/")[-1])
                zones = [z for z in zones if key(z) >= first]
            limit = _limit(p)
            answer = {"HostedZones": [z.described() for z in zones[:limit]], "IsTruncated": len(zones) > limit,
                      "MaxItems": str(limit)}
            for name in ("DNSName", "HostedZoneId"):
                if name in p:
                    answer[name] = p[name]
            if answer["IsTruncated"]:
                answer["NextDNSName"], answer["NextHostedZoneId"] = escaped(zones[limit].name), zones[limit].id
            return answer

    def ListResourceRecordSets(self, p, caller):
        with self.lock:
            zone = self._zone(p["HostedZoneId"])
            if "StartRecordType" in p and "StartRecordName" not in p:
                raise AwsError("InvalidInput", "The input is not valid: StartRecordType without StartRecordName")
            first = (reversed_labels(p.get("StartRecordName", ".")), p.get("StartRecordType", ""),
                     p.get("StartRecordIdentifier", ""))
            order = lambda k: (reversed_labels(k[0]), k[1], k[2] or "")
            keys = sorted(zone.records, key=order)
            if "StartRecordName" in p:
                keys = [k for k in keys if order(k) >= first]
            limit = _limit(p, 300)
            answer = {"ResourceRecordSets": [{**zone.records[k], "Name": escaped(k[0])} for k in keys[:limit]],
                      "IsTruncated": len(keys) > limit, "MaxItems": str(limit)}
            if answer["IsTruncated"]:
                name, kind, identifier = keys[limit]
                answer["NextRecordName"], answer["NextRecordType"] = escaped(name), kind
                if identifier:
                    answer["NextRecordIdentifier"] = identifier
            return answer

    def ChangeResourceRecordSets(self, p, caller):
        with self.lock:
            zone = self._zone(p["HostedZoneId"])
            records = dict(zone.records)
            problems = [t for c in p["ChangeBatch"]["Changes"] if (t := _change(zone, records, c))]
            if problems:
                raise AwsError("InvalidChangeBatch", "[" + ", ".join(problems) + "]")
            zone.records = records
            zone.version += 1
            version = zone.version

            def serve():
                if version > zone.served_version:               # a later change may have settled first
                    zone.served, zone.served_version = dict(records), version
            return {"ChangeInfo": self._submit(serve, p["ChangeBatch"].get("Comment"))}

    def GetChange(self, p, caller):
        with self.lock:
            if p["Id"] not in self.changes:
                raise AwsError("NoSuchChange", f"A change with the specified change ID does not exist: {p['Id']}", 404)
            return {"ChangeInfo": dict(self.changes[p["Id"]])}


def _limit(p, most=100):
    try:
        return max(1, min(int(p.get("MaxItems", most)), most))
    except ValueError:
        raise AwsError("InvalidInput", f"MaxItems is no number: {p['MaxItems']}") from None


def _change(zone, records, change):
    """Carries out one change on records; a text when it isn't possible."""
    record = {**change["ResourceRecordSet"]}
    record["Name"] = absolute(record["Name"].replace("\\052", "*"))
    name, kind = record["Name"], record["Type"]
    key = (name, kind, record.get("SetIdentifier"))
    what = f"resource record set [name='{escaped(name)}', type='{kind}'" + \
        (f", set identifier='{key[2]}'" if key[2] else "") + "]"
    if name != zone.name and not name.endswith("." + zone.name):
        return f"RRSet with DNS name {escaped(name)} is not permitted in zone {zone.name}"
    if ("AliasTarget" in record) == ("ResourceRecords" in record) or ("ResourceRecords" in record) != ("TTL" in record):
        return f"Invalid request: Expected exactly one of [AliasTarget, all of [TTL, and ResourceRecords], or " \
               f"TrafficPolicyInstanceId], but found none in Change with [Action={change['Action']}, Name={escaped(name)}, Type={kind}]"
    if kind == "CNAME" and len(record.get("ResourceRecords", [1])) != 1:
        return f"{what} has more than one value"
    if any(not re.search(r"\S", r["Value"]) for r in record.get("ResourceRecords", [])):
        return f"Invalid Resource Record: empty value in {what}"
    action = change["Action"]
    if action == "DELETE":
        if records.get(key) != record:
            return f"Tried to delete {what} but " + ("the values provided do not match the current values"
                                                     if key in records else "it was not found")
        del records[key]
        return None
    if action == "CREATE" and key in records:
        return f"Tried to create {what} but it already exists"
    if kind == "CNAME" and name == zone.name:
        return f"RRSet of type CNAME with DNS name {escaped(name)} is not permitted at apex in zone {zone.name}"
    others = [k for k in records if k[0] == name and k != key]
    if any((k[1] == "CNAME") != (kind == "CNAME") for k in others):
        return f"RRSet of type {kind} with DNS name {escaped(name)} is not permitted as it conflicts with other records " \
               f"with the same DNS name in zone {zone.name}"
    if any(k[1] == kind and (k[2] is None) != (key[2] is None) for k in others):
        return f"{what} conflicts with one that has another routing policy"
    records[key] = record
    return None
