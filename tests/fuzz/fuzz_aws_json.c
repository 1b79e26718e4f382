/* JSON answers and errors of AWS. */
#include "aws/failure.h"
#include "aws/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_failure(Span text)
{
    HttpAnswer answer;
    Failure failure;
    Err err = ERR_INIT;

    http_answer_init(&answer, MIB(4));
    answer.status = 400;
    buf_put_span(&answer.body, text);
    failure_read(AWS_JSON, &answer, &failure);
    failure_fill(&failure, &aws_service_kms, "DescribeKey", 1, &err);
    if (!failure.code[0] || strchr(failure.code, '\n') || strchr(failure.message, '\n'))
        abort();
    http_answer_fini(&answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_JSON object = NULL;
    Err err = ERR_INIT;
    Arena arena;

    arena_init(&arena, 1024);
    if (awsjson_parse(span_of(data, size), &object, &err)) {
        awsjson_text(object, "KeyId", &arena);
        awsjson_bool(object, "Enabled");
        awsjson_num(object, "Version");
    } else if (err.kind != ERR_PROTOCOL || object) {
        abort();
    }
    read_failure(span_of(data, size));
    arena_fini(&arena);
    return 0;
}
