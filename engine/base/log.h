/* log.h - one event per line, named values, constant event texts.
 *
 *   log_info("transaction applied", F_U64("rows", n), F_LSN("lsn", end));
 *   level=info event="transaction applied" rows=12 lsn=0/16B3748
 *
 * Formats: text on a terminal, logfmt otherwise, json on request. Safe from every thread. There is
 * no field kind for secrets, and row data is never logged above debug.
 */
#ifndef LOG_H
#define LOG_H

#include "engine/base/buf.h"
#include "engine/base/err.h"
#include "engine/base/span.h"

typedef enum LogLevel { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG } LogLevel;
typedef enum LogFormat {
    LOG_FORMAT_AUTO,
    LOG_FORMAT_TEXT,
    LOG_FORMAT_LOGFMT,
    LOG_FORMAT_JSON
} LogFormat;

typedef struct LogField {
    const char *name;
    enum { LOG_END, LOG_STR, LOG_SPAN, LOG_U64, LOG_I64, LOG_LSN, LOG_MS, LOG_BOOL } kind;
    union {
        const char *str;
        Span span;
        uint64_t u64;
        int64_t i64;
        double ms;
    } value;
} LogField;

#define F_STR(n, v)  ((LogField){.name = (n), .kind = LOG_STR, .value.str = (v)})
#define F_SPAN(n, v) ((LogField){.name = (n), .kind = LOG_SPAN, .value.span = (v)})
#define F_U64(n, v)  ((LogField){.name = (n), .kind = LOG_U64, .value.u64 = (uint64_t)(v)})
#define F_I64(n, v)  ((LogField){.name = (n), .kind = LOG_I64, .value.i64 = (int64_t)(v)})
#define F_LSN(n, v)  ((LogField){.name = (n), .kind = LOG_LSN, .value.u64 = (v)})
#define F_MS(n, v)   ((LogField){.name = (n), .kind = LOG_MS, .value.ms = (v)})
#define F_BOOL(n, v) ((LogField){.name = (n), .kind = LOG_BOOL, .value.u64 = (v) ? 1 : 0})

/* Before the first line; AUTO is text on a terminal, logfmt otherwise. */
void log_setup(LogLevel level, LogFormat format);
/* A name for this thread's lines, e.g. "source app"; borrowed, NULL for none. */
void log_thread(const char *name);
bool log_enabled(LogLevel level);
void log_event(LogLevel level, const char *event, const LogField *fields);
/* A field's value as records of events write it; `words` puts its text, quoted as the record needs.
 */
void log_put_value(Buf *buf, const LogField *field, void (*words)(Buf *buf, Span text));
/* The error with its kind, code and hint. Only the supervisor and main call it. */
void log_err(LogLevel level, const char *event, const Err *err);
/* On a terminal a live line that the next log line replaces; elsewhere nothing. NULL clears it. */
void log_progress(const char *line);

#define log_at(level, event, ...)                                                       \
    do {                                                                                \
        if (log_enabled(level))                                                         \
            log_event((level), (event),                                                 \
                      (const LogField[]){__VA_ARGS__ __VA_OPT__(, ){.kind = LOG_END}}); \
    } while (0)
#define log_error(event, ...) log_at(LOG_LEVEL_ERROR, event __VA_OPT__(, ) __VA_ARGS__)
#define log_warn(event, ...)  log_at(LOG_LEVEL_WARN, event __VA_OPT__(, ) __VA_ARGS__)
#define log_info(event, ...)  log_at(LOG_LEVEL_INFO, event __VA_OPT__(, ) __VA_ARGS__)
#define log_debug(event, ...) log_at(LOG_LEVEL_DEBUG, event __VA_OPT__(, ) __VA_ARGS__)

#endif
