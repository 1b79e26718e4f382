/* client_impl.h - what the service files use: one call of each protocol. */
#ifndef AWS_CLIENT_IMPL_H
#define AWS_CLIENT_IMPL_H

#include "aws/client.h"
#include "aws/endpoint.h"
#include "aws/http.h"
#include "aws/json.h"
#include "aws/query.h"
#include "aws/xml.h"

typedef struct AwsCall {
    const AwsService *service;
    const char *operation;
    const char *method;
    const char *path;  /* "/…", encoded */
    const char *query; /* encoded, without "?"; NULL: none */
    Span body;
    const char *content_type; /* NULL: no body */
    size_t most_answer;       /* bytes; 0: 8 MiB */
} AwsCall;

/* Signs, sends, retries. True with an answer of status 2xx. */
MUST_USE bool aws_do(Aws *aws, const AwsCall *call, HttpAnswer *answer, Err *err);
/* After a failed call: an attempt of it may have taken effect (its answer was lost, or was a 5xx).
 */
bool aws_was_ambiguous(const Aws *aws);

unsigned aws_poll_ms(const Aws *aws); /* longest pause between two looks */

/* Query protocol; `result` is the element <OperationResult>, or the root when there is none. */
MUST_USE bool aws_query(Aws *aws, const AwsService *service, const char *operation,
                        const Query *query, Arena *arena, const XmlNode **result, Err *err);
/* As aws_query, with bytes that XML forbids replaced by '?'. */
MUST_USE bool aws_query_scrubbed(Aws *aws, const AwsService *service, const char *operation,
                                 const Query *query, Arena *arena, const XmlNode **result,
                                 Err *err);
/* JSON 1.1: `object` (stolen) is sent, `answer` must be dropped. */
MUST_USE bool aws_json(Aws *aws, const AwsService *service, const char *operation, json_t *object,
                       json_t **answer, Err *err);
/* REST-XML; body NULL: GET. */
MUST_USE bool aws_rest(Aws *aws, const AwsService *service, const char *operation, const char *path,
                       const char *query, const char *body, Arena *arena, const XmlNode **root,
                       Err *err);

/* The error's AWS code is one of the names, separated by blanks. */
bool aws_code_is(const Err *err, const char *codes);

#endif
