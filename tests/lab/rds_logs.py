"""The servers' logs and RDS's events."""
import re

from lab.errors import AwsError
from lab.protocol import stamp

class RdsLogs:
    def DescribeDBLogFiles(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
        wanted = lambda name, size, when: (p.get("FilenameContains", "") in name and size >= p.get("FileSize", 0)
                                           and when * 1000 >= p.get("FileLastWritten", 0))
        found = [{"LogFileName": name, "Size": size, "LastWritten": int(when * 1000)}
                 for name, _, size, when in instance.db.logs() if wanted(name, size, when)]
        return self._answer("DescribeDBLogFiles", self._page("DescribeDBLogFiles", p, found, lambda f: f["LogFileName"]), dict)

    def DownloadDBLogFilePortion(self, p, caller):
        with self.lock:
            instance = self._instance(p["DBInstanceIdentifier"])
            if instance.status == "creating":
                raise AwsError("DBInstanceNotReady", f"DB instance {instance.id} is not ready", 400)
        paths = {name: path for name, path, _, _ in instance.db.logs()}
        if p["LogFileName"] not in paths:
            raise AwsError("DBLogFileNotFoundFault", f"DBLog File: {p['LogFileName']}, is not found on the DB instance", 404)
        with open(paths[p["LogFileName"]], "rb") as f:
            data = f.read()
        return log_portion(data, p.get("Marker"), p.get("NumberOfLines"))

    def DescribeEvents(self, p, caller):
        with self.lock:
            if "SourceIdentifier" in p and "SourceType" not in p:
                raise AwsError("InvalidParameterCombination",
                               "The parameter SourceType must be provided if SourceIdentifier is")
            end = p["EndTime"].timestamp() if "EndTime" in p else self.lab.clock.now() + 1
            start = p["StartTime"].timestamp() if "StartTime" in p else self.lab.clock.now() - 60 * p.get("Duration", 60)
            found = []
            for number, (when, kind, source, message, categories) in enumerate(self.events):
                if not start <= when <= end or p.get("SourceType", kind) != kind:
                    continue
                if p.get("SourceIdentifier", source).lower() != source:
                    continue
                if p.get("EventCategories") and not set(p["EventCategories"]) & set(categories):
                    continue
                found.append((number, {"SourceIdentifier": source, "SourceType": kind, "Message": message, "Date": stamp(when),
                                       "EventCategories": categories, "SourceArn": self.arn(
                                           {"db-instance": "db", "db-snapshot": "snapshot"}[kind], source)}))
            return self._answer("Events", self._page("DescribeEvents", p, found, lambda e: e[0]), lambda e: e[1])


MEGABYTE = 1 << 20


def log_portion(data, marker, lines):
    """A DownloadDBLogFilePortion answer: from the marker onwards, or the newest lines when there is none."""
    limit = lines if lines else 10000
    if limit < 0:
        raise AwsError("InvalidParameterValue", f"Invalid NumberOfLines {lines}")
    if marker is None:
        start = _start_of_last_lines(data, limit)
    elif marker == "0":
        start = 0
    else:
        match = re.fullmatch(r"lab:(\d+):x", marker)            # not to be understood by anybody but us
        if not match or int(match.group(1)) > len(data):
            raise AwsError("InvalidParameterValue", f"Invalid marker {marker}")
        start = int(match.group(1))
    end = start
    for _ in range(limit):
        line = data.find(b"\n", end)
        if line < 0 or line + 1 - start > MEGABYTE:
            break
        end = line + 1
    if end == start:                                            # one long line, or the unfinished last one
        end = min(len(data), start + MEGABYTE)
    while end < len(data) and data[end] & 0xC0 == 0x80:         # not inside a UTF-8 character
        end -= 1
    text = data[start:end].decode(errors="replace")
    text = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)
    return {"LogFileData": text, "Marker": f"lab:{end}:x", "AdditionalDataPending": end < len(data)}


def _start_of_last_lines(data, limit):
    at = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(limit):
        at = data.rfind(b"\n", 0, at)
        if at < 0:
            return max(0, len(data) - MEGABYTE)
    return max(at + 1, len(data) - MEGABYTE)
