/* XML answers: parsed or refused, as they are and scrubbed; what the services read from them must
 * hold for any tree. */
#include "aws/failure.h"
#include "aws/rds_impl.h"
#include "aws/xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t walk(const XmlNode *node, size_t depth)
{
    size_t count = 1;

    if (depth > XML_MOST_DEPTH || !node->name || !node->text || (node->first && *node->text))
        abort();
    for (const XmlNode *child = xml_first(node, NULL); child; child = xml_next(child, NULL))
        count += walk(child, depth + 1);
    return count;
}

static bool parse(Span text, Arena *arena)
{
    Err err = ERR_INIT;
    RdsInstance instance;
    XmlNode *root;

    if (!xml_parse(text, arena, &root, &err)) {
        if (err.kind != ERR_PROTOCOL || root)
            abort();
        return false;
    }
    if (walk(root, 1) > XML_MOST_NODES)
        abort();
    rds_read_instance(root, arena, &instance);
    rds_read_tags(root, arena);
    xml_names(root, "a", "member", arena);
    return true;
}

static void read_failure(Span text)
{
    HttpAnswer answer;
    Failure failure;
    Err err = ERR_INIT;

    http_answer_init(&answer, MIB(4));
    answer.status = 400;
    buf_put_span(&answer.body, text);
    failure_read(AWS_QUERY, &answer, &failure);
    failure_fill(&failure, &aws_service_rds, "Operation", 2, &err);
    if (!failure.code[0] || strchr(failure.code, '\n') || strchr(failure.message, '\n'))
        abort();
    http_answer_fini(&answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *scrubbed = malloc(size ? size : 1);
    Arena arena;
    bool whole;

    arena_init(&arena, 4096);
    whole = parse(span_of(data, size), &arena);
    if (size)
        memcpy(scrubbed, data, size);
    xml_scrub(scrubbed, size);
    if (!parse(span_of(scrubbed, size), &arena) && whole &&
        (size < 5 || memcmp(data, "<?xml", 5) != 0))
        abort(); /* scrubbing breaks nothing; but a declared encoding other than UTF-8 may be one
                    that it can't know */
    read_failure(span_of(data, size));
    arena_fini(&arena);
    free(scrubbed);
    return 0;
}
