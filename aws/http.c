#include "aws/http.h"

#include <curl/curl.h>
#include <pthread.h>
#include <strings.h>
#include <time.h>

#include "engine/base/mono.h"

#define MOST_HEAD  KIB(64)
#define USER_AGENT "keybridge"

struct Http {
    CURL *easy;
    CURLM *multi;
    const Stop *stop;
    char *ca_bundle;
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_ready;

static void curl_setup(void)
{
    curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void slist_drop(struct curl_slist **list)
{
    curl_slist_free_all(*list);
}
#define AUTO_SLIST ON_EXIT(slist_drop) struct curl_slist *

Http *http_new(const char *ca_bundle, const Stop *stop, Err *err)
{
    Http *http;

    pthread_once(&curl_once, curl_setup);
    if (curl_ready != CURLE_OK) {
        err_fail(err, ERR_SYSTEM, "starting libcurl: %s", curl_easy_strerror(curl_ready));
        return NULL;
    }
    http = calloc(1, sizeof(*http));
    if (!http)
        abort();
    http->stop = stop;
    http->easy = curl_easy_init();
    http->multi = curl_multi_init();
    http->ca_bundle = ca_bundle && *ca_bundle ? strdup(ca_bundle) : NULL;
    if (!http->easy || !http->multi) {
        http_free(http);
        err_fail(err, ERR_SYSTEM, "starting libcurl: no memory for a handle");
        return NULL;
    }
    return http;
}

void http_free(Http *http)
{
    if (!http)
        return;
    if (http->easy)
        curl_easy_cleanup(http->easy);
    if (http->multi)
        curl_multi_cleanup(http->multi);
    free(http->ca_bundle);
    free(http);
}

void http_add_header(HttpRequest *request, const char *name, const char *value)
{
    assert(request->header_count < HTTP_MOST_HEADERS);
    request->headers[request->header_count++] = (HttpHeader){name, value};
}

void http_answer_init(HttpAnswer *answer, size_t most_body)
{
    *answer = (HttpAnswer){.status = 0};
    buf_init(&answer->head, MOST_HEAD);
    buf_init(&answer->body, most_body);
}

void http_answer_fini(HttpAnswer *answer)
{
    buf_fini(&answer->head);
    buf_wipe(&answer->body); /* credentials come this way */
}

static size_t on_body(char *at, size_t size, size_t count, void *self)
{
    Buf *body = self;

    buf_put(body, at, size * count);
    return body->overflowed ? 0 : size * count;
}

static size_t on_head(char *at, size_t size, size_t count, void *self)
{
    Buf *head = self;
    size_t len = size * count;

    /* a new status line: what came before was an interim or proxy answer */
    if (len > 5 && memcmp(at, "HTTP/", 5) == 0)
        buf_clear(head);
    buf_put(head, at, len);
    return head->overflowed ? 0 : len;
}

static bool put_headers(const HttpRequest *request, struct curl_slist **list, Err *err)
{
    AUTO_BUF line;

    buf_init(&line, KIB(64));
    for (size_t i = 0; i < request->header_count; i++) {
        struct curl_slist *more;

        buf_clear(&line);
        buf_printf(&line, "%s: %s", request->headers[i].name, request->headers[i].value);
        if (!buf_ok(&line, "an HTTP header", err))
            return false;
        if (memchr(line.at, '\n', line.len) || memchr(line.at, '\r', line.len))
            return err_fail(err, ERR_CONFIG, "the value of HTTP header %s contains a line end",
                            request->headers[i].name);
        more = curl_slist_append(*list, buf_str(&line));
        if (!more)
            abort();
        *list = more;
    }
    /* libcurl would wait a second for a "100 Continue" before a large body */
    *list = curl_slist_append(*list, "Expect:");
    buf_wipe(&line);
    return true;
}

static void set_method(CURL *easy, const HttpRequest *request)
{
    bool has_body = strcmp(request->method, "POST") == 0 || strcmp(request->method, "PUT") == 0;

    if (has_body) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.len);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS,
                         request->body.at ? (const char *)request->body.at : "");
    }
    if (strcmp(request->method, "GET") == 0)
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    else
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
}

static void set_options(Http *http, const HttpRequest *request, HttpAnswer *answer, char *why)
{
    CURL *easy = http->easy;

    curl_easy_reset(easy); /* keeps the connections */
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L); /* it was signed as it is */
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, USER_AGENT);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                     (long)(request->connect_ms ? request->connect_ms : 10000));
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
                     (long)(request->timeout_ms ? request->timeout_ms : 60000));
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (http->ca_bundle)
        curl_easy_setopt(easy, CURLOPT_CAINFO, http->ca_bundle);
    if (request->direct)
        curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, request->once ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer->body);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_head);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, &answer->head);
    set_method(easy, request);
}

/* Drives the transfer with the stop's eventfd in the same poll, so that a stop needs no time. */
static bool drive(Http *http, CURLcode *result, Err *err)
{
    struct curl_waitfd wake = {.fd = http->stop ? http->stop->fd : -1, .events = CURL_WAIT_POLLIN};
    int running = 1;

    *result = CURLE_OK;
    while (running) {
        CURLMcode code = curl_multi_perform(http->multi, &running);
        CURLMsg *message;
        int left;

        if (code == CURLM_OK && running)
            code = curl_multi_poll(http->multi, &wake, http->stop ? 1 : 0, 1000, NULL);
        if (code != CURLM_OK)
            return err_fail(err, ERR_SYSTEM, "driving an HTTP transfer: %s",
                            curl_multi_strerror(code));
        if (http->stop && stop_requested(http->stop))
            return stop_fail(err, "waiting for an answer");
        while ((message = curl_multi_info_read(http->multi, &left)))
            if (message->msg == CURLMSG_DONE)
                *result = message->data.result;
    }
    return true;
}

static bool is_tls_failure(CURLcode code)
{
    return code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE ||
           code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_ISSUER_ERROR ||
           code == CURLE_SSL_INVALIDCERTSTATUS;
}

static bool is_our_mistake(CURLcode code)
{
    return code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL ||
           code == CURLE_BAD_FUNCTION_ARGUMENT;
}

static bool fail_transfer(const HttpRequest *request, CURLcode code, const char *why,
                          HttpAnswer *answer, Err *err)
{
    int len = (int)strcspn(request->url, "?"); /* a query may hold a signature */

    if (answer->body.overflowed || answer->head.overflowed)
        return err_fail(err, ERR_AWS, "%.*s: the answer is larger than %zu bytes", len,
                        request->url,
                        answer->body.overflowed ? answer->body.most : answer->head.most);
    err_fail(err, is_our_mistake(code) ? ERR_CONFIG : ERR_AWS, "%.*s: %s", len, request->url,
             why[0] ? why : curl_easy_strerror(code));
    if (is_tls_failure(code)) {
        err_code(err, "TlsError");
        return err_hint(
            err,
            "the server's certificate must be trusted: AWS_CA_BUNDLE names a file with the CA's certificate");
    }
    answer->timed_out = code == CURLE_OPERATION_TIMEDOUT;
    if (!is_our_mistake(code))
        err_hint(
            err,
            "is the region right, and does this machine reach that address? HTTPS_PROXY names a proxy");
    err->transient = !is_our_mistake(code);
    return err_code(err, answer->timed_out ? "Timeout" : "ConnectionError");
}

/* Whether bytes of the request can have left: libcurl counts them only once there is a connection.
 */
static bool was_sent(CURL *easy)
{
    long bytes = 0;

    curl_easy_getinfo(easy, CURLINFO_REQUEST_SIZE, &bytes);
    return bytes > 0;
}

bool http_do(Http *http, const HttpRequest *request, HttpAnswer *answer, Err *err)
{
    char why[CURL_ERROR_SIZE] = "";
    AUTO_SLIST list = NULL;
    CURLcode code;
    long status = 0;
    bool driven;

    buf_clear(&answer->head);
    buf_clear(&answer->body);
    answer->status = 0;
    answer->sent = answer->timed_out = false;
    set_options(http, request, answer, why);
    if (!put_headers(request, &list, err))
        return false;
    curl_easy_setopt(http->easy, CURLOPT_HTTPHEADER, list);
    if (curl_multi_add_handle(http->multi, http->easy) != CURLM_OK)
        return err_fail(err, ERR_SYSTEM, "starting an HTTP transfer failed");
    driven = drive(http, &code, err);
    answer->sent = was_sent(http->easy);
    curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(http->multi, http->easy);
    if (!driven)
        return false;
    if (code != CURLE_OK)
        return fail_transfer(request, code, why, answer, err);
    answer->status = (int)status;
    return true;
}

bool http_pause(Http *http, unsigned ms)
{
    if (http->stop)
        return stop_wait(http->stop, ms);
    curl_multi_poll(http->multi, NULL, 0, (int)ms,
                    NULL); /* nothing to wait for, so it waits the whole time */
    return false;
}

static Span trim(Span text)
{
    while (text.len && (text.at[0] == ' ' || text.at[0] == '\t')) {
        text.at++;
        text.len--;
    }
    while (text.len && (text.at[text.len - 1] == ' ' || text.at[text.len - 1] == '\t' ||
                        text.at[text.len - 1] == '\r'))
        text.len--;
    return text;
}

Span http_header(const HttpAnswer *answer, const char *name)
{
    const uint8_t *at = answer->head.at;
    const uint8_t *end = at ? at + answer->head.len : NULL;
    size_t name_len = strlen(name);

    while (at && at < end) {
        const uint8_t *stop = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((stop ? stop : end) - at);

        if (len > name_len && at[name_len] == ':' &&
            strncasecmp((const char *)at, name, name_len) == 0)
            return trim(span_of(at + name_len + 1, len - name_len - 1));
        at = stop ? stop + 1 : end;
    }
    return SPAN_NONE;
}

static bool host_is_sane(const char *host)
{
    /* brackets for IPv6; no user names, spaces or escapes: they'd be signed differently from what
     * is sent */
    return *host &&
           strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]") ==
               strlen(host);
}

static const char *without_port(const char *host, Arena *arena)
{
    const char *close = host[0] == '[' ? strchr(host, ']') : NULL;
    const char *colon = strchr(close ? close : host, ':');

    if (close)
        return arena_str_of(arena, span_of(host + 1, (size_t)(close - host - 1)));
    return colon ? arena_str_of(arena, span_of(host, (size_t)(colon - host))) : host;
}

bool http_url(const char *url, Arena *arena, HttpUrl *out)
{
    const char *at;
    const char *port;
    size_t len;
    char *host;

    *out = (HttpUrl){.tls = strncasecmp(url, "https://", 8) == 0};
    if (!out->tls && strncasecmp(url, "http://", 7) != 0)
        return false;
    at = url + (out->tls ? 8 : 7);
    len = strcspn(at, "/?#");
    host = arena_str_of(arena, span_of(at, len));
    at += len;
    if (!host_is_sane(host))
        return false;
    port = out->tls ? ":443" : ":80";
    if (len > strlen(port) && strcmp(host + len - strlen(port), port) == 0)
        host[len - strlen(port)] = '\0';
    out->host = host;
    out->name = without_port(host, arena);
    len = strcspn(at, "?#");
    out->path = len ? arena_str_of(arena, span_of(at, len)) : "/";
    at += len;
    out->query = *at == '?' ? arena_str_of(arena, span_of(at + 1, strcspn(at + 1, "#"))) : "";
    return true;
}
