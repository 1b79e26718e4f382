/* http.h - one HTTP exchange at a time over libcurl: TLS verified, bounded answer, ends at once on
 * a stop.
 *
 * An Http holds one easy handle and its connections and belongs to one thread. Redirects are not
 * followed (a signed request must not go elsewhere). Errors are ERR_AWS; `transient` when the
 * network failed, not when TLS or the URL is wrong.
 */
#ifndef AWS_HTTP_H
#define AWS_HTTP_H

#include "engine/base/arena.h"
#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/base/stop.h"

typedef struct Http Http;

typedef struct HttpHeader {
    const char *name;
    const char *value;
} HttpHeader;

#define HTTP_MOST_HEADERS 16

typedef struct HttpRequest {
    const char *method;
    const char *url;
    HttpHeader headers[HTTP_MOST_HEADERS];
    size_t header_count;
    Span body;
    unsigned connect_ms; /* 0: 10 s */
    unsigned timeout_ms; /* of the whole exchange; 0: 60 s */
    bool direct;         /* never through a proxy: link-local addresses */
    bool once; /* on a connection of its own: libcurl silently sends again when a kept one turns out
                  dead */
} HttpRequest;

typedef struct HttpAnswer {
    int status;
    Buf head; /* the header lines */
    Buf body;
    bool sent;      /* the request may have reached the server, so it may have taken effect */
    bool timed_out; /* no answer in time */
} HttpAnswer;

/* ca_bundle NULL: the system's. The texts are copied. */
MUST_USE Http *http_new(const char *ca_bundle, const Stop *stop, Err *err);
void http_free(Http *http);

/* AsciiZ name and value must outlive the exchange; false once there are too many. */
void http_add_header(HttpRequest *request, const char *name, const char *value);

void http_answer_init(HttpAnswer *answer, size_t most_body);
void http_answer_fini(HttpAnswer *answer);
#define AUTO_ANSWER ON_EXIT(http_answer_fini) HttpAnswer

/* True whenever there is an answer, whatever its status. */
MUST_USE bool http_do(Http *http, const HttpRequest *request, HttpAnswer *answer, Err *err);

/* Wait; true when stopped meanwhile. */
bool http_pause(Http *http, unsigned ms);

/* The value, trimmed; at NULL when there is none. Names are compared without case. */
Span http_header(const HttpAnswer *answer, const char *name);

/* Parts of an absolute http(s) URL; false when it isn't one. Host with port, without the scheme's
 * own port. */
typedef struct HttpUrl {
    bool tls;
    const char *host;  /* as it belongs into the Host header */
    const char *name;  /* without port and brackets */
    const char *path;  /* "/" when there is none; without the query */
    const char *query; /* without "?"; "" when there is none */
} HttpUrl;

MUST_USE bool http_url(const char *url, Arena *arena, HttpUrl *out);

#endif
