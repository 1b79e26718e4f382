#include "aws/kms.h"

#include "aws/client_impl.h"

bool kms_describe_key(Aws *aws, const char *key, Arena *arena, KmsKey *out, Err *err)
{
    AUTO_JSON answer = NULL;
    const json_t *data;

    if (!aws_json(aws, &aws_service_kms, "DescribeKey", json_pack("{s:s}", "KeyId", key), &answer,
                  err))
        return err_context(err, "key %s", key);
    data = json_object_get(answer, "KeyMetadata");
    *out = (KmsKey){.id = awsjson_text(data, "KeyId", arena),
                    .arn = awsjson_text(data, "Arn", arena),
                    .account = awsjson_text(data, "AWSAccountId", arena),
                    .description = awsjson_text(data, "Description", arena),
                    .state = awsjson_text(data, "KeyState", arena),
                    .manager = awsjson_text(data, "KeyManager", arena),
                    .spec = awsjson_text(data, "KeySpec", arena),
                    .usage = awsjson_text(data, "KeyUsage", arena),
                    .origin = awsjson_text(data, "Origin", arena),
                    .enabled = awsjson_bool(data, "Enabled"),
                    .multi_region = awsjson_bool(data, "MultiRegion")};
    if (!out->spec) /* answers of older API versions */
        out->spec = awsjson_text(data, "CustomerMasterKeySpec", arena);
    return out->arn ||
           err_fail(err, ERR_PROTOCOL, "KMS DescribeKey: the answer for %s has no Arn", key);
}

static bool is(const char *text, const char *wanted)
{
    return text && strcmp(text, wanted) == 0;
}

static const char *shown(const char *text)
{
    return text ? text : "not given";
}

bool kms_check_key(const KmsKey *key, Err *err)
{
    if (!is(key->state, "Enabled")) {
        err_fail(err, ERR_AWS, "key %s can't be used: it is %s", key->arn, shown(key->state));
        err_hint(
            err,
            "enable it (kms:EnableKey, kms:CancelKeyDeletion first when its deletion is pending) or choose another");
        return err_code(err, "KMSInvalidStateException");
    }
    if (is(key->spec, "SYMMETRIC_DEFAULT") && is(key->usage, "ENCRYPT_DECRYPT"))
        return true;
    err_fail(err, ERR_AWS, "key %s can't encrypt a database: spec %s, usage %s", key->arn,
             shown(key->spec), shown(key->usage));
    err_hint(err, "RDS takes only symmetric encryption keys (SYMMETRIC_DEFAULT, ENCRYPT_DECRYPT)");
    return err_code(err, "KMSKeyNotAccessibleFault");
}
