#include "aws/failure.h"

#include "aws/json.h"
#include "aws/xml.h"

#define THROTTLED 1
#define TRANSIENT 2
#define CLOCK     4
#define EXPIRED   8

/* Codes that mean more than their message. In hints %s is the IAM action. */
static const struct {
    const char *code;
    unsigned means;
    const char *hint;
} codes[] = {
    {"Throttling", THROTTLED, NULL},
    {"ThrottlingException", THROTTLED, NULL},
    {"ThrottledException", THROTTLED, NULL},
    {"RequestThrottledException", THROTTLED, NULL},
    {"RequestThrottled", THROTTLED, NULL},
    {"TooManyRequestsException", THROTTLED, NULL},
    {"ProvisionedThroughputExceededException", THROTTLED, NULL},
    {"TransactionInProgressException", THROTTLED, NULL},
    {"RequestLimitExceeded", THROTTLED, NULL},
    {"BandwidthLimitExceeded", THROTTLED, NULL},
    {"LimitExceededException", THROTTLED, NULL},
    {"SlowDown", THROTTLED, NULL},
    {"PriorRequestNotComplete", THROTTLED, NULL},
    {"EC2ThrottledException", THROTTLED, NULL},
    {"RequestTimeout", TRANSIENT, NULL},
    {"RequestTimeoutException", TRANSIENT, NULL},
    {"InternalFailure", TRANSIENT, NULL},
    {"InternalError", TRANSIENT, NULL},
    {"KMSInternalException", TRANSIENT, NULL},
    {"DependencyTimeoutException", TRANSIENT, NULL},
    {"ServiceUnavailable", TRANSIENT, NULL},
    {"IDPCommunicationError", TRANSIENT, NULL},
    {"RequestExpired", CLOCK | EXPIRED, "this machine's clock differs from AWS's: set it by NTP"},
    {"RequestTimeTooSkewed", CLOCK, "this machine's clock differs from AWS's: set it by NTP"},
    {"RequestInTheFuture", CLOCK, "this machine's clock differs from AWS's: set it by NTP"},
    {"SignatureDoesNotMatch", CLOCK,
     "the secret access key doesn't belong to the access key id, or this machine's clock is wrong"},
    {"InvalidSignatureException", CLOCK,
     "the secret access key doesn't belong to the access key id, or this machine's clock is wrong"},
    {"AuthFailure", CLOCK, "the access key isn't valid here, or this machine's clock is wrong"},
    {"ExpiredToken", EXPIRED,
     "the session credentials ran out: log in again, or use a profile or role that is refreshed by itself"},
    {"ExpiredTokenException", EXPIRED,
     "the session credentials ran out: log in again, or use a profile or role that is refreshed by itself"},
    {"InvalidClientTokenId", 0,
     "the access key doesn't exist, was deleted, or belongs to another partition (China and GovCloud have their own)"},
    {"UnrecognizedClientException", 0,
     "the access key doesn't exist, was deleted, or belongs to another partition (China and GovCloud have their own)"},
    {"MissingAuthenticationToken", 0,
     "the request came without a signature: is a proxy removing headers?"},
    {"AccessDenied", 0, "allow %s for this identity: docs/aws.md has the whole policy"},
    {"AccessDeniedException", 0, "allow %s for this identity: docs/aws.md has the whole policy"},
    {"UnauthorizedOperation", 0, "allow %s for this identity: docs/aws.md has the whole policy"},
    {"OptInRequired", 0, "this account hasn't enabled the service or region"},
    {"KMSKeyNotAccessibleFault", 0,
     "the key must be in this region and enabled, and key policy and IAM must let this identity use kms:DescribeKey and kms:CreateGrant through RDS"},
    {"NotFoundException", 0,
     "a key of another account is named by its ARN; one of another region can't be used"},
    {"SnapshotQuotaExceeded", 0,
     "delete manual snapshots, or raise the quota \"Manual DB instance snapshots\""},
    {"InstanceQuotaExceeded", 0, "delete instances, or raise the quota \"DB instances\""},
    {"StorageQuotaExceeded", 0,
     "delete instances, or raise the quota \"Total storage for all DB instances\""},
    {"InsufficientDBInstanceCapacity", 0,
     "AWS has no such instance free in that zone: try later, or take another class or zone"},
    {"InvalidDBInstanceState", 0,
     "the instance is busy with another change: wait until it is \"available\""},
    {"InvalidDBSnapshotState", 0, "the snapshot isn't \"available\" (yet)"},
    {"DBSnapshotAlreadyExists", 0,
     "a snapshot of that name exists and is not of this run: delete it or start another run"},
    {"DBInstanceAlreadyExists", 0,
     "an instance of that name exists and is not of this run: choose another name"},
};

static void set_text(char *to, size_t size, const char *from)
{
    size_t len = from ? strcspn(from, "\r\n")
                      : 0; /* behind a line end AWS prints the signed request, token included */

    snprintf(to, size, "%.*s", (int)size_min(len, size - 1), from ? from : "");
}

static void read_xml(Span body, Failure *failure)
{
    Arena arena;
    XmlNode *root;
    Err unread = ERR_INIT;

    arena_init(&arena, 4096);
    if (xml_parse(body, &arena, &root, &unread)) {
        const XmlNode *error =
            xml_at(root, "Error") ? xml_at(root, "Error") : xml_at(root, "Errors/Error");
        const char *id =
            xml_text(root, "RequestId") ? xml_text(root, "RequestId") : xml_text(root, "RequestID");

        set_text(failure->code, sizeof(failure->code),
                 error ? xml_text(error, "Code") : root->name);
        set_text(failure->message, sizeof(failure->message),
                 error ? xml_text(error, "Message") : xml_text(root, "Messages/Message"));
        set_text(failure->request_id, sizeof(failure->request_id), id);
    }
    arena_fini(&arena);
}

/* "com.amazonaws.kms#NotFoundException:http://…" is NotFoundException */
static void set_json_code(Failure *failure, const char *type)
{
    char text[256];
    char *colon;
    char *hash;

    snprintf(text, sizeof(text), "%s", type ? type : "");
    if ((colon = strchr(text, ':')))
        *colon = '\0';
    hash = strrchr(text, '#');
    set_text(failure->code, sizeof(failure->code), hash ? hash + 1 : text);
}

static void read_json(Span body, Failure *failure)
{
    AUTO_JSON object = NULL;
    Err unread = ERR_INIT;
    const char *message;

    if (!awsjson_parse(body, &object, &unread))
        return;
    set_json_code(failure, json_string_value(json_object_get(object, "__type")));
    message = json_string_value(json_object_get(object, "message"));
    set_text(failure->message, sizeof(failure->message),
             message ? message : json_string_value(json_object_get(object, "Message")));
}

static size_t known(const char *code)
{
    size_t i = 0;

    while (i < ARRAY_LEN(codes) && strcmp(codes[i].code, code) != 0)
        i++;
    return i;
}

static void classify(Failure *failure)
{
    size_t i = known(failure->code);
    unsigned means = i < ARRAY_LEN(codes) ? codes[i].means : 0;
    int status = failure->status;

    failure->throttled = (means & THROTTLED) || status == 429;
    failure->transient = failure->throttled || (means & TRANSIENT) || status == 500 ||
                         status == 502 || status == 503 || status == 504;
    failure->clock = (means & CLOCK) != 0;
    failure->expired = (means & EXPIRED) != 0;
}

static void set_span(char *to, size_t size, Span from)
{
    snprintf(to, size, "%.*s", (int)size_min(from.len, size - 1),
             from.at ? (const char *)from.at : "");
}

void failure_read(AwsProtocol protocol, const HttpAnswer *answer, Failure *failure)
{
    Span body = buf_span(&answer->body);
    Span id = http_header(answer, "x-amzn-requestid");

    *failure = (Failure){.status = answer->status};
    if (protocol == AWS_JSON)
        read_json(body, failure);
    else
        read_xml(body, failure);
    if (!id.at)
        id = http_header(answer, "x-amz-request-id");
    if (id.at)
        set_span(failure->request_id, sizeof(failure->request_id), id);
    if (!failure->code[0]) /* a proxy or load balancer speaks */
        snprintf(failure->code, sizeof(failure->code), "HTTP %d", answer->status);
    classify(failure);
}

static void set_hint(const Failure *failure, const AwsService *service, const char *operation,
                     Err *err)
{
    size_t i = known(failure->code);
    char action[128];
    const char *hint = i < ARRAY_LEN(codes) ? codes[i].hint : NULL;
    const char *gap;

    if (!hint)
        return;
    snprintf(action, sizeof(action), "%s:%s", service->signing, operation);
    gap = strstr(hint, "%s");
    if (gap)
        err_hint(err, "%.*s%s%s", (int)(gap - hint), hint, action, gap + 2);
    else
        err_hint(err, "%s", hint);
}

void failure_fill(const Failure *failure, const AwsService *service, const char *operation,
                  unsigned attempts, Err *err)
{
    char tries[48] = "";

    if (attempts > 1)
        snprintf(tries, sizeof(tries), ", attempt %u", attempts);
    err_fail(err, ERR_AWS, "%s %s: %s%s%s (request id %s%s)", service->title, operation,
             failure->code, failure->message[0] ? ": " : "", failure->message,
             failure->request_id[0] ? failure->request_id : "none", tries);
    err_code(err, failure->code);
    err->transient = failure->transient;
    set_hint(failure, service, operation, err);
}

uint64_t failure_retry_after_ms(const HttpAnswer *answer)
{
    Span ms = http_header(answer, "x-amz-retry-after");
    Span seconds = http_header(answer, "Retry-After");
    char text[16];

    set_span(text, sizeof(text), ms.at ? ms : seconds);
    if (!text[0] || strspn(text, "0123456789") != strlen(text))
        return 0;
    return strtoull(text, NULL, 10) * (ms.at ? 1 : 1000);
}
