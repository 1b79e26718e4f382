#include "aws/assume.h"

#include <time.h>

#include "aws/query.h"
#include "aws/xml.h"
#include "engine/base/mono.h"

#define MOST_ANSWER KIB(256)
#define ATTEMPTS    3

uint64_t aws_time(const char *text)
{
    struct tm parts = {.tm_isdst = 0};
    const char *end = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &parts) : NULL;
    time_t seconds;

    if (!end)
        return 0;
    if (*end == '.')
        end += 1 + strspn(end + 1, "0123456789");
    seconds = timegm(&parts);
    if (strncmp(end, "+00:00", 6) != 0 && strcmp(end, "Z") != 0 && *end)
        return 0; /* another zone: none of these services sends one */
    return seconds > 0 ? (uint64_t)seconds : 0;
}

static void put_params(Query *query, const Assume *how)
{
    query_init(query, how->token ? "AssumeRoleWithWebIdentity" : "AssumeRole",
               aws_service_sts.version);
    query_str(query, "RoleArn", how->role);
    query_str(query, "RoleSessionName", how->session ? how->session : "keybridge");
    query_str(query, "ExternalId", how->token ? NULL : how->external_id);
    query_str(query, "DurationSeconds", how->duration);
    query_str(query, "WebIdentityToken", how->token);
}

static bool sign(HttpRequest *request, const HttpUrl *url, const Endpoint *endpoint,
                 const AwsKeys *keys, Arena *arena, Err *err)
{
    uint64_t now = wall_us() / 1000000;
    char *date = arena_alloc(arena, SIGV4_DATE);
    SigInput in = {.method = request->method,
                   .path = span_str(url->path),
                   .body = request->body,
                   .region = endpoint->region,
                   .service = "sts",
                   .when = now};
    SigOutput out;

    sigv4_date(now, date);
    http_add_header(request, "X-Amz-Date", date);
    if (keys->token)
        http_add_header(request, "X-Amz-Security-Token", keys->token);
    in.headers = request->headers;
    in.header_count = request->header_count;
    if (!sigv4_sign(&in, keys, arena, &out, err))
        return false;
    http_add_header(request, "Authorization", out.authorization);
    return true;
}

static bool refused(const HttpAnswer *answer, const XmlNode *root, const Assume *how, Err *err)
{
    const char *code = xml_text(root, "Error/Code");
    const char *message = xml_text(root, "Error/Message");

    err_fail(err, ERR_AWS, "assuming role %s: %s: %.400s (request id %s)", how->role,
             code ? code : "no code", message ? message : "no message",
             xml_text(root, "RequestId") ? xml_text(root, "RequestId") : "none");
    err->transient = answer->status >= 500 || (code && strcmp(code, "Throttling") == 0);
    err_hint(
        err,
        "the role's trust policy must name the identity that assumes it, and that identity needs sts:%s on the role",
        how->token ? "AssumeRoleWithWebIdentity" : "AssumeRole");
    return err_code(err, code ? code : "HttpError");
}

static char *copy_text(const XmlNode *node, const char *path)
{
    const char *text = xml_text(node, path);

    return text && *text ? strdup(text) : NULL;
}

static bool take_keys(const XmlNode *root, const Assume *how, AwsKeys *out, Err *err)
{
    const XmlNode *keys = xml_at(root, how->token ? "AssumeRoleWithWebIdentityResult/Credentials"
                                                  : "AssumeRoleResult/Credentials");

    *out = (AwsKeys){.id = copy_text(keys, "AccessKeyId"),
                     .secret = copy_text(keys, "SecretAccessKey"),
                     .token = copy_text(keys, "SessionToken"),
                     .expires = aws_time(xml_text(keys, "Expiration"))};
    if (out->id && out->secret && out->token && out->expires)
        return true;
    aws_keys_wipe(out);
    return err_fail(err, ERR_PROTOCOL,
                    "assuming role %s: the answer lacks a part of the credentials", how->role);
}

static bool exchange(Http *http, const HttpRequest *request, const Assume *how, Arena *arena,
                     AwsKeys *out, Err *err)
{
    AUTO_ANSWER answer;
    XmlNode *root = NULL;
    Err unread = ERR_INIT;

    http_answer_init(&answer, MOST_ANSWER);
    if (!http_do(http, request, &answer, err))
        return err_context(err, "assuming role %s", how->role);
    if (!xml_parse(buf_span(&answer.body), arena, &root, answer.status == 200 ? err : &unread) &&
        answer.status == 200)
        return err_context(err, "assuming role %s", how->role);
    return answer.status == 200 ? take_keys(root, how, out, err) : refused(&answer, root, how, err);
}

static bool attempt(Http *http, const Endpoint *endpoint, const AwsKeys *keys, const Assume *how,
                    Arena *arena, AwsKeys *out, Err *err)
{
    char *target = arena_printf(arena, "%s/", endpoint->url);
    HttpRequest request = {.method = "POST", .url = target, .timeout_ms = 20000};
    HttpUrl url;
    AUTO_QUERY query;

    put_params(&query, how);
    if (!buf_ok(&query.body, "a request to STS", err))
        return false;
    if (!http_url(target, arena, &url))
        return err_fail(err, ERR_BUG, "the STS endpoint isn't a URL");
    request.body = buf_span(&query.body);
    http_add_header(&request, "Host", url.host);
    http_add_header(&request, "Content-Type", "application/x-www-form-urlencoded; charset=utf-8");
    if (!how->token && !sign(&request, &url, endpoint, keys, arena, err))
        return false;
    return exchange(http, &request, how, arena, out, err);
}

bool assume_role(Http *http, const Endpoint *endpoint, const AwsKeys *keys, const Assume *how,
                 AwsKeys *out, Err *err)
{
    Arena arena;
    bool ok = false;

    arena_init(&arena, 4096);
    for (unsigned i = 0; i < ATTEMPTS && !ok; i++) {
        err_clear(err);
        ok = attempt(http, endpoint, keys, how, &arena, out, err);
        if (!ok && !err->transient)
            break;
        if (!ok && i + 1 < ATTEMPTS && http_pause(http, 500U << i))
            break;
    }
    arena_fini(&arena);
    return ok;
}
