"""The official service models, and the checks of requests against them.

They are botocore's as Debian ships it, plus the few members of newer models that keybridge has reason to use (see NEWER).
"""
import re

import botocore.loaders
import botocore.model
import botocore.validate

from lab.errors import Invalid

STRING, INTEGER, BOOLEAN, STAMP = "String", "IntegerOptional", "BooleanOptional", "TStamp"

# Members that are in the models of 2026 and not in Debian's (1.29.27): operation input or output shape -> members.
NEWER = {
    "rds": {
        "CreateDBInstanceMessage": {
            "CACertificateIdentifier": STRING, "DedicatedLogVolume": BOOLEAN, "EngineLifecycleSupport": STRING,
            "ManageMasterUserPassword": BOOLEAN, "MasterUserSecretKmsKeyId": STRING, "DatabaseInsightsMode": STRING},
        "ModifyDBInstanceMessage": {
            "DedicatedLogVolume": BOOLEAN, "ManageMasterUserPassword": BOOLEAN, "RotateMasterUserPassword": BOOLEAN,
            "MasterUserSecretKmsKeyId": STRING, "DatabaseInsightsMode": STRING, "Engine": STRING},
        "RestoreDBInstanceFromDBSnapshotMessage": {
            "AllocatedStorage": INTEGER, "BackupRetentionPeriod": INTEGER, "PreferredBackupWindow": STRING,
            "CACertificateIdentifier": STRING, "DedicatedLogVolume": BOOLEAN, "EngineLifecycleSupport": STRING,
            "ManageMasterUserPassword": BOOLEAN, "MasterUserSecretKmsKeyId": STRING},
        "CopyDBSnapshotMessage": {"CopyOptionGroup": BOOLEAN},
        "DBInstance": {
            "DedicatedLogVolume": BOOLEAN, "EngineLifecycleSupport": STRING, "DatabaseInsightsMode": STRING,
            "StorageEncryptionType": STRING, "MasterUserSecret": "MasterUserSecret"},
        "DBSnapshot": {"DedicatedLogVolume": BOOLEAN, "StorageEncryptionType": STRING},
        "PendingModifiedValues": {"DedicatedLogVolume": BOOLEAN},
    },
}
NEWER_SHAPES = {
    "rds": {"MasterUserSecret": {"type": "structure", "members": {
        "SecretArn": {"shape": STRING}, "SecretStatus": {"shape": STRING}, "KmsKeyId": {"shape": STRING}}}},
}

_loaded = {}


def load(service):
    if service not in _loaded:
        data = botocore.loaders.Loader().load_service_model(service, "service-2")
        for name, shape in NEWER_SHAPES.get(service, {}).items():
            data["shapes"].setdefault(name, shape)
        for shape, members in NEWER.get(service, {}).items():
            for member, kind in members.items():
                data["shapes"][shape]["members"].setdefault(member, {"shape": kind})
        _loaded[service] = botocore.model.ServiceModel(data, service)
    return _loaded[service]


def operation(service, action):
    model = load(service)
    if action not in model.operation_names:
        raise Invalid("InvalidAction", f"Could not find operation {action} for version {model.api_version}")
    return model.operation_model(action)


def check_input(shape, params):
    """Invalid unless params fit the shape: required members, types, minima, maxima, enumerations, patterns."""
    report = botocore.validate.ParamValidator().validate(params, shape)
    if report.has_errors():
        text = report.generate_report()
        raise Invalid("MissingParameter" if "Missing required" in text else "ValidationError", text)
    _check_values(shape, params, shape.name)


def _check_values(shape, value, where):
    if shape.type_name == "structure":
        for name, inner in value.items():
            _check_values(shape.members[name], inner, f"{where}.{name}")
    elif shape.type_name == "list":
        for n, inner in enumerate(value):
            _check_values(shape.member, inner, f"{where}[{n}]")
        _check_length(shape, len(value), where)
    elif shape.type_name == "string":
        if shape.enum and value not in shape.enum:
            raise Invalid("ValidationError", f"{where}: {value!r} is none of {', '.join(shape.enum)}")
        pattern = shape.metadata.get("pattern")
        if pattern and not _pattern(pattern).fullmatch(value):
            raise Invalid("ValidationError", f"{where}: {value!r} doesn't match {pattern}")
        _check_length(shape, len(value), where)
    elif shape.type_name in ("integer", "long"):
        _check_length(shape, value, where)


def _check_length(shape, size, where):
    if "max" in shape.metadata and size > shape.metadata["max"]:
        raise Invalid("ValidationError", f"{where}: {size} is more than {shape.metadata['max']}")


def _pattern(text):
    # the models' patterns are Java's; \p{...} isn't Python's and isn't needed to catch what a client may get wrong
    text = re.sub(r"\\p\{[A-Za-z]+\}", r"\\w", text)
    try:
        return re.compile(text, re.S)
    except re.error:
        return re.compile(".*", re.S)
