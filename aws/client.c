#include "aws/client.h"

#include <curl/curl.h>
#include <strings.h>
#include <sys/random.h>

#include "aws/client_impl.h"
#include "aws/creds.h"
#include "aws/failure.h"
#include "engine/base/log.h"
#include "engine/base/mono.h"

#define ATTEMPTS      8
#define MOST_ATTEMPTS 100
#define TIMEOUT_MS    60000
#define POLL_MS       15000
#define FIRST_POLL_MS 1000
#define RETRY_MS      1000
#define MOST_PAUSE    20 /* in units of retry_ms */
#define MOST_ANSWER   MIB(8)
#define MOST_NONSENSE 5 /* looks in a row */

/* The retry quota of the SDKs' standard mode: when most calls fail, more retries only add to the
 * trouble. */
#define TOKENS         500
#define TOKENS_RETRY   5
#define TOKENS_TIMEOUT 10

#define MOST_SKEW_S  (24 * 3600) /* beyond, it isn't the clock */
#define LEAST_SKEW_S 30

struct Aws {
    Arena arena; /* the options' texts and the endpoints, as long as the client lives */
    AwsOptions options;
    Creds *creds;
    Http *http;
    const char *region; /* NULL: none found */
    struct {
        const AwsService *service;
        Endpoint endpoint;
    } endpoints[8];
    size_t endpoint_count;
    int64_t skew_s; /* of AWS's clock against ours */
    unsigned tokens;
    bool ambiguous;
};

/* Life --------------------------------------------------------------------------------------- */

static const char *variable(const char *name)
{
    const char *value = getenv(name);

    return value && *value ? value : NULL;
}

static const char *first_of(const char *a, const char *b, const char *c, const char *d)
{
    return a ? a : b ? b : c ? c : d;
}

static void copy_options(Aws *aws, const AwsOptions *options)
{
    AwsOptions *own = &aws->options;

    *own = *options;
    own->region = arena_strdup(&aws->arena, options->region);
    own->profile = arena_strdup(&aws->arena, options->profile);
    own->endpoint = arena_strdup(&aws->arena, options->endpoint);
    own->run = arena_strdup(&aws->arena, options->run);
    own->timeout_ms = own->timeout_ms ? own->timeout_ms : TIMEOUT_MS;
    own->poll_ms = own->poll_ms ? own->poll_ms : POLL_MS;
    own->retry_ms = own->retry_ms ? own->retry_ms : RETRY_MS;
}

static bool set_attempts(Aws *aws, Err *err)
{
    const char *profile = creds_profile(aws->creds);
    const char *text =
        first_of(variable("AWS_MAX_ATTEMPTS"),
                 profiles_setting(creds_profiles(aws->creds), profile, "max_attempts"), NULL, NULL);
    char *end;
    unsigned long value;

    if (aws->options.attempts || !text) {
        aws->options.attempts = aws->options.attempts ? aws->options.attempts : ATTEMPTS;
        return true;
    }
    value = strtoul(text, &end, 10);
    if (*end || value < 1 || value > MOST_ATTEMPTS)
        return err_fail(err, ERR_CONFIG,
                        "AWS_MAX_ATTEMPTS or max_attempts is \"%.32s\", not a number from 1 to %d",
                        text, MOST_ATTEMPTS);
    aws->options.attempts = (unsigned)value;
    return true;
}

static void set_region(Aws *aws, const Profiles *profiles, const char *profile)
{
    aws->region =
        arena_strdup(&aws->arena, first_of(aws->options.region, variable("AWS_REGION"),
                                           variable("AWS_DEFAULT_REGION"),
                                           profiles_setting(profiles, profile, "region")));
}

static bool make_creds(Aws *aws, Err *err)
{
    const char *profile = first_of(aws->options.profile, variable("AWS_PROFILE"),
                                   variable("AWS_DEFAULT_PROFILE"), "default");
    Profiles *profiles = profiles_load(err);
    CredsOptions options = {.profile = profile,
                            .profile_is_asked = aws->options.profile != NULL,
                            .endpoint = aws->options.endpoint};

    if (!profiles)
        return false;
    set_region(aws, profiles, profile);
    options.region = aws->region;
    aws->creds = creds_new(&options, err);
    profiles_free(profiles);
    return aws->creds != NULL;
}

static bool finish_open(Aws *aws, Err *err)
{
    const char *ca;

    if (!set_attempts(aws, err))
        return false;
    ca = first_of(
        variable("AWS_CA_BUNDLE"),
        profiles_setting(creds_profiles(aws->creds), creds_profile(aws->creds), "ca_bundle"), NULL,
        NULL);
    aws->tokens = TOKENS;
    aws->http = http_new(ca, aws->options.stop, err);
    return aws->http != NULL;
}

static Aws *new_client(const AwsOptions *options)
{
    Aws *aws = calloc(1, sizeof(*aws));

    if (!aws)
        abort();
    arena_init(&aws->arena, 1024);
    copy_options(aws, options);
    return aws;
}

Aws *aws_open(const AwsOptions *options, Err *err)
{
    Aws *aws = new_client(options);

    if (make_creds(aws, err) && finish_open(aws, err))
        return aws;
    aws_free(aws);
    err_context(err, "AWS");
    return NULL;
}

Aws *aws_again(const Aws *aws, Err *err)
{
    Aws *other = new_client(&aws->options);

    other->creds = creds_share(aws->creds);
    other->region = arena_strdup(&other->arena, aws->region);
    other->skew_s = aws->skew_s;
    if (finish_open(other, err))
        return other;
    aws_free(other);
    return NULL;
}

void aws_free(Aws *aws)
{
    if (!aws)
        return;
    http_free(aws->http);
    creds_release(aws->creds);
    arena_fini(&aws->arena);
    free(aws);
}

static bool no_region(Err *err)
{
    err_fail(err, ERR_CONFIG, "AWS: no region is set");
    return err_hint(err, "set AWS_REGION, or region in the profile");
}

bool aws_region(Aws *aws, const char **region, Err *err)
{
    *region = aws->region;
    return aws->region || no_region(err);
}

const char *aws_run(const Aws *aws)
{
    return aws->options.run;
}

bool aws_is_ours(const Aws *aws, AwsTags tags)
{
    const char *tag = aws_tag(tags, AWS_RUN_TAG);

    return aws->options.run && tag && strcmp(tag, aws->options.run) == 0;
}

unsigned aws_poll_ms(const Aws *aws)
{
    return aws->options.poll_ms;
}

bool aws_was_ambiguous(const Aws *aws)
{
    return aws->ambiguous;
}

/* One attempt -------------------------------------------------------------------------------- */

static bool find_endpoint(Aws *aws, const AwsService *service, Endpoint *out, Err *err)
{
    EndpointQuestion question = {
        .service = service, .region = aws->region, .override = aws->options.endpoint};

    for (size_t i = 0; i < aws->endpoint_count; i++)
        if (aws->endpoints[i].service == service) {
            *out = aws->endpoints[i].endpoint;
            return true;
        }
    if (!aws->region && !service->global)
        return no_region(err);
    question.profile = creds_profile(aws->creds);
    if (!endpoint_find(creds_profiles(aws->creds), &question, &aws->arena, out, err))
        return false;
    /* the region comes from the question and lives as long as the client; origin may belong to the
     * profiles, which do too */
    assert(aws->endpoint_count < ARRAY_LEN(aws->endpoints));
    aws->endpoints[aws->endpoint_count].service = service;
    aws->endpoints[aws->endpoint_count++].endpoint = *out;
    return true;
}

static uint64_t now_s(const Aws *aws)
{
    return (uint64_t)((int64_t)(wall_us() / 1000000) + aws->skew_s);
}

static void add_content(const AwsCall *call, HttpRequest *request, Arena *arena)
{
    if (call->content_type)
        http_add_header(request, "Content-Type", call->content_type);
    if (call->service->protocol == AWS_JSON)
        http_add_header(request, "X-Amz-Target",
                        arena_printf(arena, "%s.%s", call->service->version, call->operation));
}

static bool sign(Aws *aws, const AwsCall *call, const Endpoint *endpoint, const HttpUrl *url,
                 const AwsKeys *keys, HttpRequest *request, Arena *arena, Err *err)
{
    char *date = arena_alloc(arena, SIGV4_DATE);
    SigInput in = {.method = call->method,
                   .path = span_str(url->path),
                   .query = span_str(url->query),
                   .body = call->body,
                   .region = endpoint->region,
                   .service = call->service->signing,
                   .when = now_s(aws)};
    SigOutput out;

    http_add_header(request, "Host", url->host);
    http_add_header(request, "X-Amz-Date", sigv4_date(in.when, date));
    if (keys->token)
        http_add_header(request, "X-Amz-Security-Token", keys->token);
    add_content(call, request, arena);
    in.headers = request->headers;
    in.header_count = request->header_count;
    if (!sigv4_sign(&in, keys, arena, &out, err))
        return false;
    http_add_header(request, "Authorization", out.authorization);
    return true;
}

static bool only_reads(const char *operation)
{
    static const char *const verbs[] = {"Describe", "List", "Get", "Download"};

    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (strncmp(operation, verbs[i], strlen(verbs[i])) == 0)
            return true;
    return false;
}

static bool attempt(Aws *aws, const AwsCall *call, const AwsKeys *keys, HttpAnswer *answer,
                    Arena *arena, Err *err)
{
    Endpoint endpoint = {.url = NULL};
    HttpUrl url;
    HttpRequest request = {.method = call->method,
                           .body = call->body,
                           .timeout_ms = aws->options.timeout_ms,
                           .once = !only_reads(call->operation)};
    char *target;

    if (!find_endpoint(aws, call->service, &endpoint, err))
        return false;
    target = arena_printf(arena, "%s%s%s%s", endpoint.url, call->path, call->query ? "?" : "",
                          call->query ? call->query : "");
    request.url = target;
    if (!http_url(target, arena, &url))
        return err_fail(err, ERR_BUG, "%.200s isn't a URL", target);
    return sign(aws, call, &endpoint, &url, keys, &request, arena, err) &&
           http_do(aws->http, &request, answer, err);
}

/* Retries ------------------------------------------------------------------------------------ */

static double random_part(void)
{
    uint32_t bits = 0;

    if (getrandom(&bits, sizeof(bits), 0) != (ssize_t)sizeof(bits))
        bits = (uint32_t)mono_us();
    return (double)bits / 4294967296.0;
}

/* Full jitter on 2^n units. Without throttling the unit is a fifth: a lost packet or a restarted
 * host heals fast. */
static unsigned pause_ms(const Aws *aws, unsigned failures, const Failure *failure,
                         const HttpAnswer *answer)
{
    unsigned unit = failure->throttled ? aws->options.retry_ms : aws->options.retry_ms / 5 + 1;
    uint64_t most = (uint64_t)aws->options.retry_ms * MOST_PAUSE;
    uint64_t range = size_min((uint64_t)unit << size_min(failures - 1, 16), most);
    uint64_t asked = failure_retry_after_ms(answer);
    uint64_t pause = (uint64_t)((double)range * random_part());

    return (unsigned)size_min(size_max(pause, asked), MOST_PAUSE * 1000);
}

/* The Date of an answer shows how far our clock is off; true when that is worth another attempt. */
static bool correct_clock(Aws *aws, const HttpAnswer *answer)
{
    Span date = http_header(answer, "Date");
    char text[64];
    time_t server;
    int64_t off;

    if (!date.at || date.len >= sizeof(text))
        return false;
    memcpy(text, date.at, date.len);
    text[date.len] = '\0';
    server = curl_getdate(text, NULL);
    off = server < 0 ? 0 : (int64_t)server - (int64_t)now_s(aws);
    if (server < 0 || llabs(off) < LEAST_SKEW_S || llabs(aws->skew_s + off) > MOST_SKEW_S)
        return false;
    aws->skew_s += off;
    log_warn("clock differs from AWS's, requests are dated by theirs",
             F_I64("seconds", aws->skew_s));
    return true;
}

typedef struct Tries {
    unsigned made;
    unsigned last_cost; /* of the newest retry, given back by a success */
    bool clock_set;
    bool keys_renewed;
} Tries;

/* Errors that another attempt mends at once, without waiting. Each once a call. */
static bool mend(Aws *aws, const Failure *failure, const HttpAnswer *answer, const AwsKeys *keys,
                 Tries *tries)
{
    if (failure->clock && !tries->clock_set) {
        tries->clock_set = true;
        if (correct_clock(aws, answer))
            return true;
    }
    if (failure->expired && !tries->keys_renewed) {
        tries->keys_renewed = true;
        return creds_expired(aws->creds, keys->id);
    }
    return false;
}

static bool may_retry(Aws *aws, const Failure *failure, Tries *tries)
{
    unsigned cost = failure->timed_out ? TOKENS_TIMEOUT : TOKENS_RETRY;

    if (!failure->transient || tries->made >= aws->options.attempts || aws->tokens < cost)
        return false;
    aws->tokens -= cost;
    tries->last_cost = cost;
    return true;
}

static void count_success(Aws *aws, const Tries *tries)
{
    aws->tokens =
        (unsigned)size_min(aws->tokens + (tries->last_cost ? tries->last_cost : 1), TOKENS);
}

static bool ended(const Err *err)
{
    return err->kind != ERR_NONE && !(err->kind == ERR_AWS && err->transient);
}

/* One attempt, and what its failure means. True: done, well or not (then err says). */
static bool try_once(Aws *aws, const AwsCall *call, HttpAnswer *answer, Tries *tries,
                     Failure *failure, Err *err)
{
    AwsKeys keys = {.id = NULL};
    Arena scratch;
    bool mended;

    err_clear(err);
    if (!creds_get(aws->creds, aws->http, aws->options.stop, &keys, err)) {
        *failure = (Failure){.transient = err->transient};
        return ended(err);
    }
    arena_init(&scratch, 8192);
    tries->made++;
    if (attempt(aws, call, &keys, answer, &scratch, err) && answer->status / 100 == 2) {
        arena_fini(&scratch);
        aws_keys_wipe(&keys);
        return true;
    }
    aws->ambiguous =
        aws->ambiguous || (answer->sent && (answer->status == 0 || answer->status >= 500));
    if (!err_is_set(err))
        failure_read(call->service->protocol, answer, failure);
    else
        *failure = (Failure){.transient = err->transient, .timed_out = answer->timed_out};
    mended = !err_is_set(err) && mend(aws, failure, answer, &keys, tries);
    if (!err_is_set(err))
        failure_fill(failure, call->service, call->operation, tries->made, err);
    else
        err_context(err, "%s %s", call->service->title, call->operation);
    arena_fini(&scratch);
    aws_keys_wipe(&keys);
    if (mended)
        *failure = (Failure){.mended = true};
    return !mended && ended(err);
}

bool aws_do(Aws *aws, const AwsCall *call, HttpAnswer *answer, Err *err)
{
    Tries tries = {.made = 0};
    Failure failure = {.transient = false};

    aws->ambiguous = false;
    while (!try_once(aws, call, answer, &tries, &failure, err)) {
        if (failure.mended)
            continue;
        if (!may_retry(aws, &failure, &tries))
            return false;
        log_debug("AWS call is retried", F_STR("service", call->service->title),
                  F_STR("operation", call->operation), F_U64("attempt", tries.made),
                  F_STR("error", err->text));
        if (http_pause(aws->http, pause_ms(aws, tries.made, &failure, answer)))
            return stop_fail(err, "retrying an AWS call");
    }
    if (err_is_set(err))
        return false;
    count_success(aws, &tries);
    return true;
}

/* Protocols ---------------------------------------------------------------------------------- */

static bool bad_answer(Aws *aws, const AwsCall *call, Err *err)
{
    aws->ambiguous = true; /* it said yes, but not to what */
    return err_context(err, "%s %s", call->service->title, call->operation);
}

static bool query_call(Aws *aws, const AwsService *service, const char *operation,
                       const Query *query, bool scrub, Arena *arena, const XmlNode **result,
                       Err *err)
{
    AwsCall call = {.service = service,
                    .operation = operation,
                    .method = "POST",
                    .path = "/",
                    .body = buf_span(&query->body),
                    .content_type = "application/x-www-form-urlencoded; charset=utf-8"};
    AUTO_ANSWER answer;
    XmlNode *root;

    http_answer_init(&answer, MOST_ANSWER);
    if (!buf_ok(&query->body, "an AWS request", err) || !aws_do(aws, &call, &answer, err))
        return false;
    if (scrub && answer.body.at)
        xml_scrub(answer.body.at, answer.body.len);
    if (!xml_parse(buf_span(&answer.body), arena, &root, err))
        return bad_answer(aws, &call, err);
    *result = xml_first(root, arena_printf(arena, "%sResult", operation));
    if (!*result)
        *result = root;
    return true;
}

bool aws_query(Aws *aws, const AwsService *service, const char *operation, const Query *query,
               Arena *arena, const XmlNode **result, Err *err)
{
    return query_call(aws, service, operation, query, false, arena, result, err);
}

bool aws_query_scrubbed(Aws *aws, const AwsService *service, const char *operation,
                        const Query *query, Arena *arena, const XmlNode **result, Err *err)
{
    return query_call(aws, service, operation, query, true, arena, result, err);
}

bool aws_json(Aws *aws, const AwsService *service, const char *operation, json_t *object,
              json_t **answer_object, Err *err)
{
    AUTO_JSON own = object;
    char *text = json_dumps(own, JSON_COMPACT);
    AwsCall call = {.service = service,
                    .operation = operation,
                    .method = "POST",
                    .path = "/",
                    .body = span_str(text),
                    .content_type = "application/x-amz-json-1.1"};
    AUTO_ANSWER answer;
    bool ok;

    http_answer_init(&answer, MOST_ANSWER);
    ok = text ? aws_do(aws, &call, &answer, err)
              : err_fail(err, ERR_BUG, "%s can't be written as JSON", operation);
    free(text);
    return ok && (awsjson_parse(buf_span(&answer.body), answer_object, err) ||
                  bad_answer(aws, &call, err));
}

bool aws_rest(Aws *aws, const AwsService *service, const char *operation, const char *path,
              const char *query, const char *body, Arena *arena, const XmlNode **root, Err *err)
{
    AwsCall call = {.service = service,
                    .operation = operation,
                    .method = body ? "POST" : "GET",
                    .path = path,
                    .query = query,
                    .body = span_str(body),
                    .content_type = body ? "application/xml" : NULL};
    AUTO_ANSWER answer;
    XmlNode *parsed;

    http_answer_init(&answer, MOST_ANSWER);
    if (!aws_do(aws, &call, &answer, err))
        return false;
    if (!xml_parse(buf_span(&answer.body), arena, &parsed, err))
        return bad_answer(aws, &call, err);
    *root = parsed;
    return true;
}

bool aws_code_is(const Err *err, const char *codes)
{
    size_t len = strlen(err->code);

    if (err->kind != ERR_AWS || !len)
        return false;
    while (*codes) {
        size_t word = strcspn(codes, " ");

        if (word == len && memcmp(codes, err->code, len) == 0)
            return true;
        codes += word + (codes[word] == ' ');
    }
    return false;
}

/* Waiting ------------------------------------------------------------------------------------ */

static bool wait_failed(const AwsWait *wait, const AwsProgress *progress, Err *err)
{
    err_fail(err, ERR_AWS, "waiting for %s: it is \"%s\"", wait->what, progress->status);
    err_hint(err, "the events of that resource in the AWS console say why it isn't usable");
    return err_code(err, progress->status);
}

/* Nonsense now and then comes from a proxy in between; always, it's a client that doesn't
 * understand the service. */
static bool may_look_again(const Err *err, unsigned nonsense)
{
    return (err->kind == ERR_AWS && err->transient) ||
           (err->kind == ERR_PROTOCOL && nonsense < MOST_NONSENSE);
}

bool aws_wait(Aws *aws, const AwsWait *wait, Err *err)
{
    uint64_t began = mono_ms();
    unsigned pause = (unsigned)size_min(FIRST_POLL_MS, aws->options.poll_ms);
    unsigned nonsense = 0;

    for (;;) {
        AwsProgress progress = {.percent = -1};
        bool seen;

        err_clear(err);
        seen = wait->look(wait->self, &progress, err);
        nonsense = !seen && err->kind == ERR_PROTOCOL ? nonsense + 1 : 0;
        if (!seen && !may_look_again(err, nonsense))
            return err_context(err, "waiting for %s", wait->what);
        if (!seen)
            log_err(LOG_LEVEL_WARN, "a look at an AWS resource failed, it is looked at again", err);
        progress.waited_ms = mono_ms() - began;
        if (seen && wait->progress)
            wait->progress(wait->progress_self, &progress);
        if (seen && progress.state == AWS_STATE_READY)
            return true;
        if (seen && progress.state == AWS_STATE_FAILED)
            return wait_failed(wait, &progress, err);
        if (http_pause(aws->http, pause))
            return err_fail(err, ERR_STOPPED, "stopped while waiting for %s", wait->what);
        pause = (unsigned)size_min(pause + pause / 4 + 1, aws->options.poll_ms);
    }
}
