#include "aws/rds_impl.h"

/* A portion is at most 1 MB, so this is more log than any bounded reader takes. */
#define MOST_PORTIONS 100000

bool rds_list_logs(Aws *aws, const char *instance, const char *contains, Arena *arena,
                   RdsLogFiles *all, Err *err)
{
    AwsTag params[] = {{"DBInstanceIdentifier", instance}, {"FilenameContains", contains}};
    RdsDescribe what = {
        "DescribeDBLogFiles", {params, 2}, "DescribeDBLogFiles", "DescribeDBLogFilesDetails"};
    RdsNodes nodes;

    if (!rds_describe(aws, &what, arena, &nodes, err))
        return false;
    all->at = arena_array(arena, RdsLogFile, nodes.count + 1);
    all->count = nodes.count;
    for (size_t i = 0; i < nodes.count; i++)
        all->at[i] = (RdsLogFile){
            .name =
                xml_text(nodes.at[i], "LogFileName") ? xml_text(nodes.at[i], "LogFileName") : "",
            .last_written = aws_num_or(xml_num(nodes.at[i], "LastWritten"), 0),
            .bytes = aws_num_or(xml_num(nodes.at[i], "Size"), 0)};
    return true;
}

typedef struct LogRead {
    Aws *aws;
    const char *instance;
    const char *file;
    RdsPortionFn *portion;
    void *self;
    char *marker; /* owned */
} LogRead;

/* *more: call again. */
static bool read_portion(LogRead *read, Arena *arena, bool *more, Err *err)
{
    const XmlNode *result;
    const char *next;
    const char *text;
    AUTO_QUERY query;

    rds_query_init(&query, "DownloadDBLogFilePortion");
    query_str(&query, "DBInstanceIdentifier", read->instance);
    query_str(&query, "LogFileName", read->file);
    query_str(&query, "Marker", read->marker);
    if (!aws_query_scrubbed(read->aws, &aws_service_rds, "DownloadDBLogFilePortion", &query, arena,
                            &result, err))
        return false;
    text = xml_text(result, "LogFileData");
    if (text && *text && !read->portion(read->self, span_str(text), err))
        return false;
    *more = xml_bool(result, "AdditionalDataPending") == AWS_TRUE;
    next = xml_text(result, "Marker");
    if (*more && (!next || !*next || strcmp(next, read->marker) == 0))
        return err_fail(
            err, ERR_PROTOCOL,
            "RDS DownloadDBLogFilePortion: more of %s is pending but the marker stays at %s",
            read->file, read->marker);
    if (*more) {
        free(read->marker);
        read->marker = strdup(next);
    }
    return true;
}

bool rds_read_log(Aws *aws, const char *instance, const char *file, RdsPortionFn *portion,
                  void *self, Err *err)
{
    LogRead read = {aws,  instance,   file, portion,
                    self, strdup("0")}; /* "0" is the start; without it RDS begins with the end */
    Arena arena;
    bool more = true;
    bool ok = true;

    arena_init(&arena, KIB(64));
    for (unsigned i = 0; ok && more; i++) {
        ok = i < MOST_PORTIONS
                 ? read_portion(&read, &arena, &more, err)
                 : err_fail(err, ERR_PROTOCOL,
                            "RDS DownloadDBLogFilePortion: %s doesn't come to an end", file);
        arena_reset(&arena);
    }
    arena_fini(&arena);
    free(read.marker);
    return ok;
}

static bool append(void *self, Span portion, Err *err)
{
    Buf *out = self;

    buf_put_span(out, portion);
    return buf_ok(out, "the database log", err);
}

bool rds_download_log(Aws *aws, const char *instance, const char *file, Buf *out, Err *err)
{
    return rds_read_log(aws, instance, file, append, out, err);
}

bool rds_list_events(Aws *aws, const char *source, const char *source_type, unsigned minutes,
                     Arena *arena, RdsEvents *all, Err *err)
{
    AwsTag params[] = {{"SourceIdentifier", source},
                       {"SourceType", source_type},
                       {"Duration", arena_printf(arena, "%u", minutes)}};
    RdsDescribe what = {"DescribeEvents", {params, 3}, "Events", "Event"};
    RdsNodes nodes;

    if (!rds_describe(aws, &what, arena, &nodes, err))
        return false;
    all->at = arena_array(arena, RdsEvent, nodes.count + 1);
    all->count = nodes.count;
    for (size_t i = 0; i < nodes.count; i++)
        all->at[i] = (RdsEvent){
            .source = xml_text(nodes.at[i], "SourceIdentifier"),
            .source_type = xml_text(nodes.at[i], "SourceType"),
            .message = xml_text(nodes.at[i], "Message") ? xml_text(nodes.at[i], "Message") : "",
            .date = xml_text(nodes.at[i], "Date"),
            .arn = xml_text(nodes.at[i], "SourceArn"),
            .categories = xml_names(nodes.at[i], "EventCategories", "EventCategory", arena)};
    return true;
}
