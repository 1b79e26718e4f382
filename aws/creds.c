#include "aws/creds.h"

#include <pthread.h>
#include <stdatomic.h>
#include <strings.h>

#include "aws/assume.h"
#include "aws/endpoint.h"
#include "aws/json.h"
#include "aws/process.h"
#include "engine/base/log.h"
#include "engine/base/mono.h"

#define MOST_ANSWER  KIB(256)
#define MOST_TOKEN   KIB(64)
#define PROCESS_MS   60000
#define EARLY_S      (15 * 60)
#define RETRY_S      60
#define SAFE_S       10 /* a request may be on its way that long */
#define MOST_HOPS    8
#define MOST_RELOADS 256

struct Creds {
    atomic_uint users;
    Profiles
        *profiles; /* replaced under the lock; older ones stay, because others may be looking */
    Profiles *older[MOST_RELOADS];
    size_t older_count;
    char *profile;
    bool profile_is_asked;
    char *region;
    char *endpoint;
    pthread_mutex_t lock; /* guards what follows */
    AwsKeys keys;
    const char *source;  /* who made them: a provider's name */
    uint64_t refresh_at; /* seconds since 1970; 0: not before they are called expired */
};

/* One walk through the chain. */
typedef struct Look {
    Creds *creds;
    Http *http;
    const Stop *stop;
    Arena arena;
    Buf tried; /* "name: why not; …" */
    const char *visited[MOST_HOPS];
    size_t hops;
} Look;

typedef enum Found { FOUND_NOT, FOUND, FOUND_FAILED } Found;

static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

static char *dup_or_null(const char *text)
{
    return text && *text ? strdup(text) : NULL;
}

static Found not_here(Look *look, const char *provider, const char *why)
{
    buf_printf(&look->tried, "%s%s: %s", look->tried.len ? "; " : "", provider, why);
    return FOUND_NOT;
}

static Found failed(Err *err, const char *provider)
{
    err_context(err, "credentials from %s", provider);
    return FOUND_FAILED;
}

/* Environment -------------------------------------------------------------------------------- */

static Found from_environment(Look *look, AwsKeys *keys, Err *err)
{
    const char *id = variable("AWS_ACCESS_KEY_ID");
    const char *secret = variable("AWS_SECRET_ACCESS_KEY");

    if (look->creds->profile_is_asked)
        return not_here(look, "environment", "passed over, because a profile was asked for");
    if (!id && !secret)
        return not_here(look, "environment", "AWS_ACCESS_KEY_ID isn't set");
    if (!id || !secret) {
        err_fail(err, ERR_CONFIG, "%s is set but %s isn't",
                 id ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY",
                 id ? "AWS_SECRET_ACCESS_KEY" : "AWS_ACCESS_KEY_ID");
        return failed(err, "the environment");
    }
    *keys = (AwsKeys){.id = strdup(id),
                      .secret = strdup(secret),
                      .token = dup_or_null(variable("AWS_SESSION_TOKEN"))};
    return FOUND;
}

/* STS ---------------------------------------------------------------------------------------- */

static bool sts_endpoint(Look *look, Endpoint *out, Err *err)
{
    Creds *creds = look->creds;
    EndpointQuestion question = {.service = &aws_service_sts,
                                 .region = creds->region,
                                 .override = creds->endpoint,
                                 .profile = creds->profile};

    if (endpoint_find(creds->profiles, &question, &look->arena, out, err)) {
        if (!creds->region && strcmp(out->url, "https://sts.us-east-1.amazonaws.com") == 0)
            out->url = "https://sts.amazonaws.com";
        return true;
    }
    return false;
}

static bool read_token(const char *path, Buf *out, Err *err)
{
    FILE *file = fopen(path, "re");
    uint8_t *room;

    if (!file)
        return err_errno(err, ERR_CONFIG, "reading the token file %s", path);
    while ((room = buf_reserve(out, 4096)) != NULL) {
        size_t got = fread(room, 1, 4096, file);

        out->len += got;
        if (got == 0)
            break;
    }
    fclose(file);
    while (out->len && strchr(" \t\r\n", out->at[out->len - 1]))
        out->len--;
    if (!buf_ok(out, "the token file", err))
        return false;
    return out->len > 0 || err_fail(err, ERR_CONFIG, "the token file %s is empty", path);
}

static bool web_identity(Look *look, const char *file, Assume *how, AwsKeys *keys, Err *err)
{
    Endpoint endpoint;
    AUTO_BUF token;
    bool ok;

    buf_init(&token, MOST_TOKEN);
    ok = read_token(file, &token, err) && sts_endpoint(look, &endpoint, err);
    how->token = ok ? buf_str(&token) : NULL;
    ok = ok && assume_role(look->http, &endpoint, NULL, how, keys, err);
    how->token = NULL;
    buf_wipe(&token);
    return ok;
}

static Found from_web_identity(Look *look, AwsKeys *keys, Err *err)
{
    const char *file = variable("AWS_WEB_IDENTITY_TOKEN_FILE");
    Assume how = {.role = variable("AWS_ROLE_ARN"), .session = variable("AWS_ROLE_SESSION_NAME")};

    if (look->creds->profile_is_asked)
        return not_here(look, "web identity", "passed over, because a profile was asked for");
    if (!file)
        return not_here(look, "web identity", "AWS_WEB_IDENTITY_TOKEN_FILE isn't set");
    if (profiles_setting(look->creds->profiles, look->creds->profile, "role_arn"))
        return not_here(look, "web identity", "passed over, because the profile assumes a role");
    if (!how.role) {
        err_fail(err, ERR_CONFIG, "AWS_WEB_IDENTITY_TOKEN_FILE is set but AWS_ROLE_ARN isn't");
        return failed(err, "web identity");
    }
    return web_identity(look, file, &how, keys, err) ? FOUND : failed(err, "web identity");
}

/* Profiles ----------------------------------------------------------------------------------- */

static bool take_json(const json_t *object, const char *token_key, AwsKeys *keys, Err *err)
{
    const char *expires = json_string_value(json_object_get(object, "Expiration"));

    *keys = (AwsKeys){
        .id = dup_or_null(json_string_value(json_object_get(object, "AccessKeyId"))),
        .secret = dup_or_null(json_string_value(json_object_get(object, "SecretAccessKey"))),
        .token = dup_or_null(json_string_value(json_object_get(object, token_key))),
        .expires = aws_time(expires)};
    if (keys->id && keys->secret && (!expires || keys->expires))
        return true;
    aws_keys_wipe(keys);
    return err_fail(
        err, ERR_AWS,
        "the answer lacks AccessKeyId or SecretAccessKey, or its Expiration is no time");
}

static bool run_process(Look *look, const char *command, AwsKeys *keys, Err *err)
{
    AUTO_BUF out;
    AUTO_JSON object = NULL;
    bool ok;

    buf_init(&out, MOST_TOKEN);
    ok = process_read(command, PROCESS_MS, look->stop, &out, err) &&
         awsjson_parse(buf_span(&out), &object, err);
    buf_wipe(&out);
    if (ok && aws_num_or(awsjson_num(object, "Version"), 0) != 1)
        return err_fail(err, ERR_AWS, "the credential_process answers in a version other than 1");
    return ok && take_json(object, "SessionToken", keys, err);
}

static Found from_container(Look *look, AwsKeys *keys, Err *err);
static Found from_metadata(Look *look, AwsKeys *keys, Err *err);
static Found from_profile_named(Look *look, const char *profile, AwsKeys *keys, Err *err);

static Found static_keys(Look *look, const char *profile, ProfileFile file, AwsKeys *keys, Err *err)
{
    const Profiles *all = look->creds->profiles;
    const char *id = profiles_get(all, file, "profile", profile, "aws_access_key_id");
    const char *secret = profiles_get(all, file, "profile", profile, "aws_secret_access_key");

    if (!id && !secret)
        return FOUND_NOT;
    if (!id || !secret) {
        err_fail(err, ERR_CONFIG,
                 "profile %s in %s has only one of aws_access_key_id and aws_secret_access_key",
                 profile, profiles_path(all, file));
        return FOUND_FAILED;
    }
    *keys = (AwsKeys){
        .id = strdup(id),
        .secret = strdup(secret),
        .token = dup_or_null(profiles_get(all, file, "profile", profile, "aws_session_token"))};
    return FOUND;
}

static Found named_source(Look *look, const char *source, AwsKeys *keys, Err *err)
{
    if (strcmp(source, "Environment") == 0)
        return from_environment(look, keys, err);
    if (strcmp(source, "EcsContainer") == 0)
        return from_container(look, keys, err);
    if (strcmp(source, "Ec2InstanceMetadata") == 0)
        return from_metadata(look, keys, err);
    err_fail(err, ERR_CONFIG,
             "credential_source %s isn't Environment, EcsContainer or Ec2InstanceMetadata", source);
    return FOUND_FAILED;
}

static bool was_visited(const Look *look, const char *profile)
{
    for (size_t i = 0; i < look->hops; i++)
        if (strcmp(look->visited[i], profile) == 0)
            return true;
    return false;
}

/* The keys that may assume the role of `profile`. A profile may name itself, then its static keys
 * are meant. */
static Found source_keys(Look *look, const char *profile, AwsKeys *keys, Err *err)
{
    const char *from = profiles_setting(look->creds->profiles, profile, "source_profile");
    const char *source = profiles_setting(look->creds->profiles, profile, "credential_source");
    Found found;

    if (!from == !source) {
        err_fail(err, ERR_CONFIG,
                 "profile %s has a role_arn and %s source_profile and credential_source", profile,
                 from ? "both" : "neither");
        return FOUND_FAILED;
    }
    if (source)
        found = named_source(look, source, keys, err);
    else if (strcmp(from, profile) == 0) {
        found = static_keys(look, profile, PROFILE_CREDENTIALS, keys, err);
        if (found == FOUND_NOT)
            found = static_keys(look, profile, PROFILE_CONFIG, keys, err);
    } else if (was_visited(look, from) || look->hops == MOST_HOPS) {
        err_fail(err, ERR_CONFIG, "source_profile of %s leads back to %s", profile, from);
        return FOUND_FAILED;
    } else
        found = from_profile_named(look, from, keys, err);
    if (found == FOUND_NOT) {
        err_fail(err, ERR_CONFIG, "no credentials to assume the role of profile %s with in %s",
                 profile, from ? from : source);
        return FOUND_FAILED;
    }
    return found;
}

static Found role_keys(Look *look, const char *profile, const char *role, AwsKeys *keys, Err *err)
{
    const Profiles *all = look->creds->profiles;
    const char *file = profiles_setting(all, profile, "web_identity_token_file");
    Assume how = {.role = role,
                  .session = profiles_setting(all, profile, "role_session_name"),
                  .external_id = profiles_setting(all, profile, "external_id"),
                  .duration = profiles_setting(all, profile, "duration_seconds")};
    AwsKeys first = {.id = NULL};
    Endpoint endpoint;
    Found found;
    bool ok;

    if (profiles_setting(all, profile, "mfa_serial")) {
        err_fail(
            err, ERR_CONFIG,
            "profile %s wants an MFA code (mfa_serial), which a migration of hours can't ask for",
            profile);
        err_hint(
            err,
            "use a role without MFA, or put session credentials of \"aws sts get-session-token\" into the environment");
        return FOUND_FAILED;
    }
    if (file)
        return web_identity(look, file, &how, keys, err) ? FOUND : FOUND_FAILED;
    found = source_keys(look, profile, &first, err);
    if (found != FOUND)
        return found;
    ok = sts_endpoint(look, &endpoint, err) &&
         assume_role(look->http, &endpoint, &first, &how, keys, err);
    aws_keys_wipe(&first);
    return ok ? FOUND : FOUND_FAILED;
}

static Found from_profile_named(Look *look, const char *profile, AwsKeys *keys, Err *err)
{
    const Profiles *all = look->creds->profiles;
    const char *role = profiles_setting(all, profile, "role_arn");
    const char *command;
    Found found;

    look->visited[look->hops++] = profile;
    if (role)
        return role_keys(look, profile, role, keys, err);
    found = static_keys(look, profile, PROFILE_CREDENTIALS, keys, err);
    if (found != FOUND_NOT)
        return found;
    command = profiles_setting(all, profile, "credential_process");
    if (command)
        return run_process(look, command, keys, err) ? FOUND : FOUND_FAILED;
    return static_keys(look, profile, PROFILE_CONFIG, keys, err);
}

static Found from_profile(Look *look, AwsKeys *keys, Err *err)
{
    const char *profile = look->creds->profile;
    const Profiles *all = look->creds->profiles;
    char *name = arena_printf(&look->arena, "profile %s", profile);
    Found found;

    if (!profiles_has(all, profile)) {
        const char *why =
            arena_printf(&look->arena, "isn't in %s or %s", profiles_path(all, PROFILE_CONFIG),
                         profiles_path(all, PROFILE_CREDENTIALS));

        if (strcmp(profile, "default") == 0)
            return not_here(look, name, why);
        err_fail(err, ERR_CONFIG, "profile %s %s", profile, why);
        return FOUND_FAILED;
    }
    found = from_profile_named(look, profile, keys, err);
    if (found == FOUND_FAILED)
        return failed(err, name);
    if (found == FOUND)
        return FOUND;
    if (profiles_setting(all, profile, "sso_session") ||
        profiles_setting(all, profile, "sso_start_url"))
        return not_here(
            look, name,
            "uses IAM Identity Center, which isn't supported: \"aws configure export-credentials\" helps");
    return not_here(look, name, "has no keys, role_arn or credential_process");
}

/* Container ---------------------------------------------------------------------------------- */

static bool host_is_trusted(const HttpUrl *url)
{
    static const char *const hosts[] = {"169.254.170.2", "169.254.170.23", "fd00:ec2::23",
                                        "localhost", "::1"};

    if (url->tls || strncmp(url->name, "127.", 4) == 0)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++)
        if (strcmp(url->name, hosts[i]) == 0)
            return true;
    return false;
}

static bool container_url(Look *look, const char **url, Err *err)
{
    const char *relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    HttpUrl parts;

    *url = relative ? arena_printf(&look->arena, "http://169.254.170.2%s", relative) : full;
    if (!http_url(*url, &look->arena, &parts) || (relative && relative[0] != '/'))
        return err_fail(err, ERR_CONFIG, "AWS_CONTAINER_CREDENTIALS_%s_URI isn't one",
                        relative ? "RELATIVE" : "FULL");
    /* plain http would hand the authorization token to whoever answers */
    return host_is_trusted(&parts) ||
           err_fail(
               err, ERR_CONFIG,
               "AWS_CONTAINER_CREDENTIALS_FULL_URI is plain http to %s, which is neither this host nor a container agent",
               parts.name);
}

static bool container_token(Buf *token, Err *err)
{
    const char *file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *plain = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");

    if (file && !read_token(file, token, err))
        return false;
    if (!file && plain)
        buf_puts(token, plain);
    if (memchr(buf_span(token).at, '\n', token->len) ||
        memchr(buf_span(token).at, '\r', token->len))
        return err_fail(err, ERR_CONFIG, "the container authorization token contains a line end");
    return buf_ok(token, "the container authorization token", err);
}

/* 200 with a body, or an error. */
static bool fetch(Look *look, const HttpRequest *request, unsigned attempts, HttpAnswer *answer,
                  Err *err)
{
    for (unsigned i = 0; i < attempts; i++) {
        err_clear(err);
        if (http_do(look->http, request, answer, err) && answer->status == 200)
            return true;
        if (err->kind == ERR_STOPPED)
            return false;
        if (!err_is_set(err)) {
            err_fail(err, ERR_AWS, "%s answers with status %d", request->url, answer->status);
            err->transient = answer->status >= 500;
        }
        if (!err->transient || (i + 1 < attempts && http_pause(look->http, 200U << i)))
            return false;
    }
    return false;
}

static bool fetch_keys(Look *look, const HttpRequest *request, unsigned attempts, AwsKeys *keys,
                       Err *err)
{
    AUTO_ANSWER answer;
    AUTO_JSON object = NULL;

    http_answer_init(&answer, MOST_ANSWER);
    return fetch(look, request, attempts, &answer, err) &&
           awsjson_parse(buf_span(&answer.body), &object, err) &&
           take_json(object, "Token", keys, err);
}

static Found from_container(Look *look, AwsKeys *keys, Err *err)
{
    HttpRequest request = {.method = "GET", .connect_ms = 2000, .timeout_ms = 2000, .direct = true};
    AUTO_BUF token;
    bool ok;

    buf_init(&token, MOST_TOKEN);
    if (!variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") &&
        !variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
        return not_here(look, "container",
                        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI aren't set");
    ok = container_url(look, &request.url, err) && container_token(&token, err);
    if (ok && token.len)
        http_add_header(&request, "Authorization", buf_str(&token));
    ok = ok && fetch_keys(look, &request, 3, keys, err);
    buf_wipe(&token);
    return ok ? FOUND : failed(err, "the container");
}

/* Instance metadata -------------------------------------------------------------------------- */

static const char *metadata_base(Look *look)
{
    const char *given = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    const char *mode = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
    size_t len;

    if (!given)
        return mode && strcasecmp(mode, "IPv6") == 0 ? "http://[fd00:ec2::254]"
                                                     : "http://169.254.169.254";
    len = strlen(given);
    while (len && given[len - 1] == '/')
        len--;
    return arena_str_of(&look->arena, span_of(given, len));
}

static bool metadata_token(Look *look, const char *base, HttpAnswer *answer, Err *err)
{
    HttpRequest request = {.method = "PUT",
                           .url = arena_printf(&look->arena, "%s/latest/api/token", base),
                           .connect_ms = 1000,
                           .timeout_ms = 2000,
                           .direct = true};

    http_add_header(&request, "X-aws-ec2-metadata-token-ttl-seconds", "21600");
    return fetch(look, &request, 2, answer, err);
}

static bool line_is_sane(Span text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.at[i] <= ' ' || text.at[i] >= 0x7F)
            return false;
    return text.len > 0;
}

/* The first line: the name of the role that the instance has. */
static const char *first_line(Look *look, const HttpAnswer *answer)
{
    Span body = buf_span(&answer->body);
    const uint8_t *end = body.len ? memchr(body.at, '\n', body.len) : NULL;

    return arena_str_of(&look->arena, end ? span_of(body.at, (size_t)(end - body.at)) : body);
}

static bool metadata_keys(Look *look, const char *base, const char *token, AwsKeys *keys, Err *err)
{
    HttpRequest request = {
        .method = "GET",
        .url = arena_printf(&look->arena, "%s/latest/meta-data/iam/security-credentials/", base),
        .connect_ms = 1000,
        .timeout_ms = 5000,
        .direct = true};
    AUTO_ANSWER answer;
    const char *role;

    http_answer_init(&answer, KIB(16));
    http_add_header(&request, "X-aws-ec2-metadata-token", token);
    if (!fetch(look, &request, 3, &answer, err))
        return false;
    role = first_line(look, &answer);
    if (!line_is_sane(span_str(role)))
        return err_fail(err, ERR_AWS, "the instance has no role");
    request.url = arena_printf(&look->arena, "%s%s", request.url, role);
    return fetch_keys(look, &request, 3, keys, err);
}

static Found from_metadata(Look *look, AwsKeys *keys, Err *err)
{
    const char *off = variable("AWS_EC2_METADATA_DISABLED");
    const char *base = metadata_base(look);
    AUTO_ANSWER answer;
    Err why = ERR_INIT;
    const char *token;
    bool ok;

    http_answer_init(&answer, KIB(16));
    if (off && strcasecmp(off, "true") == 0)
        return not_here(look, "instance metadata", "off by AWS_EC2_METADATA_DISABLED");
    if (!metadata_token(look, base, &answer, &why)) {
        if (why.kind == ERR_STOPPED) {
            *err = why;
            return FOUND_FAILED;
        }
        return not_here(look, "instance metadata",
                        arena_printf(&look->arena, "no answer from %s", base));
    }
    if (!line_is_sane(buf_span(&answer.body))) {
        err_fail(err, ERR_AWS, "%s answers with something that is no token", base);
        return failed(err, "instance metadata");
    }
    token = buf_str(&answer.body);
    ok = metadata_keys(look, base, token, keys, err);
    return ok ? FOUND : failed(err, "instance metadata");
}

/* The chain ---------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    Found (*look)(Look *look, AwsKeys *keys, Err *err);
} chain[] = {{"environment", from_environment},
             {"web identity", from_web_identity},
             {"profile", from_profile},
             {"container", from_container},
             {"instance metadata", from_metadata}};

static bool none_found(Look *look, Err *err)
{
    err_fail(err, ERR_CONFIG, "no AWS credentials found: %.800s", buf_str(&look->tried));
    return err_hint(
        err,
        "set AWS_PROFILE to a profile with credentials, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; docs/aws.md has the whole chain");
}

static bool walk(Look *look, AwsKeys *keys, const char **source, Err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(chain); i++) {
        Found found = chain[i].look(look, keys, err);

        *source = chain[i].name;
        if (found != FOUND_NOT)
            return found == FOUND;
    }
    return none_found(look, err);
}

static uint64_t now_s(void)
{
    return wall_us() / 1000000;
}

/* A quarter of an hour ahead, or at half time for keys that don't last that long. */
static uint64_t refresh_time(uint64_t expires)
{
    uint64_t now = now_s();
    uint64_t left = expires > now ? expires - now : 0;

    return expires ? now + (left > 2 * EARLY_S ? left - EARLY_S : left / 2) : 0;
}

/* Somebody may have logged in again since the files were read. */
static void reload_profiles(Creds *creds)
{
    Err unread = ERR_INIT;
    Profiles *fresh = creds->older_count < MOST_RELOADS ? profiles_load(&unread) : NULL;

    if (!fresh)
        return; /* what was read before still stands */
    creds->older[creds->older_count++] = creds->profiles;
    creds->profiles = fresh;
}

static bool renew(Creds *creds, Http *http, const Stop *stop, Err *err)
{
    Look look = {.creds = creds, .http = http, .stop = stop};
    AwsKeys keys = {.id = NULL};
    bool ok;

    if (creds->source)
        reload_profiles(creds);
    arena_init(&look.arena, 4096);
    buf_init(&look.tried, KIB(16));
    ok = walk(&look, &keys, &creds->source, err);
    arena_fini(&look.arena);
    buf_fini(&look.tried);
    if (!ok)
        return false;
    aws_keys_wipe(&creds->keys);
    creds->keys = keys;
    creds->refresh_at = refresh_time(keys.expires);
    log_debug("AWS credentials found", F_STR("source", creds->source), F_STR("key", creds->keys.id),
              F_U64("expires", creds->keys.expires));
    return true;
}

static bool is_due(const Creds *creds)
{
    return !creds->keys.id || (creds->refresh_at && now_s() >= creds->refresh_at);
}

static bool still_good(const Creds *creds)
{
    return creds->keys.id && (!creds->keys.expires || creds->keys.expires > now_s() + SAFE_S);
}

bool creds_get(Creds *creds, Http *http, const Stop *stop, AwsKeys *keys, Err *err)
{
    bool ok = true;

    pthread_mutex_lock(&creds->lock);
    if (is_due(creds) && !renew(creds, http, stop, err)) {
        ok = still_good(creds) && err->kind != ERR_STOPPED;
        if (ok) { /* the old ones last a while, the next look may succeed */
            log_err(LOG_LEVEL_WARN, "AWS credentials could not be refreshed", err);
            err_clear(err);
            creds->refresh_at = now_s() + RETRY_S;
        }
    }
    if (ok)
        *keys = aws_keys_dup(&creds->keys);
    pthread_mutex_unlock(&creds->lock);
    return ok;
}

bool creds_expired(Creds *creds, const char *id)
{
    bool changes;

    pthread_mutex_lock(&creds->lock);
    changes = !creds->keys.id || strcmp(creds->keys.id, id) != 0 || creds->keys.expires != 0 ||
              (creds->source &&
               strcmp(creds->source, "profile") == 0); /* somebody may log in again meanwhile */
    if (changes && creds->keys.id && strcmp(creds->keys.id, id) == 0)
        aws_keys_wipe(&creds->keys);
    pthread_mutex_unlock(&creds->lock);
    return changes;
}

/* Life --------------------------------------------------------------------------------------- */

Creds *creds_new(const CredsOptions *options, Err *err)
{
    Creds *creds = calloc(1, sizeof(*creds));

    if (!creds)
        abort();
    atomic_init(&creds->users, 1);
    pthread_mutex_init(&creds->lock, NULL);
    creds->profile = strdup(options->profile);
    creds->profile_is_asked = options->profile_is_asked;
    creds->region = dup_or_null(options->region);
    creds->endpoint = dup_or_null(options->endpoint);
    creds->profiles = profiles_load(err);
    if (creds->profiles)
        return creds;
    creds_release(creds);
    return NULL;
}

Creds *creds_share(Creds *creds)
{
    atomic_fetch_add(&creds->users, 1);
    return creds;
}

void creds_release(Creds *creds)
{
    if (!creds || atomic_fetch_sub(&creds->users, 1) != 1)
        return;
    aws_keys_wipe(&creds->keys);
    profiles_free(creds->profiles);
    for (size_t i = 0; i < creds->older_count; i++)
        profiles_free(creds->older[i]);
    pthread_mutex_destroy(&creds->lock);
    free(creds->profile);
    free(creds->region);
    free(creds->endpoint);
    free(creds);
}

const Profiles *creds_profiles(Creds *creds)
{
    const Profiles *profiles;

    pthread_mutex_lock(&creds->lock);
    profiles = creds->profiles;
    pthread_mutex_unlock(&creds->lock);
    return profiles;
}

const char *creds_profile(const Creds *creds)
{
    return creds->profile;
}
