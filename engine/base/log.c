#include "engine/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/buf.h"
#include "engine/base/mono.h"

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const char *const level_colours[] = {"\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[2m"};

static pthread_mutex_t line_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int most_level = LOG_LEVEL_INFO;
static LogFormat line_format = LOG_FORMAT_LOGFMT;
static bool is_terminal;
static bool progress_shown; /* under line_lock */
static _Thread_local const char *thread_name;

void log_setup(LogLevel level, LogFormat format)
{
    is_terminal = isatty(STDERR_FILENO) == 1;
    if (format == LOG_FORMAT_AUTO)
        format = is_terminal ? LOG_FORMAT_TEXT : LOG_FORMAT_LOGFMT;
    line_format = format;
    atomic_store(&most_level, (int)level);
}

void log_thread(const char *name)
{
    thread_name = name;
}

bool log_enabled(LogLevel level)
{
    return (int)level <= atomic_load_explicit(&most_level, memory_order_relaxed);
}

static bool needs_quotes(Span text)
{
    if (text.len == 0)
        return true;
    for (size_t i = 0; i < text.len; i++)
        if (text.at[i] <= ' ' || text.at[i] == '"' || text.at[i] == '=' || text.at[i] == '\\' ||
            text.at[i] == 0x7F)
            return true;
    return false;
}

/* A value is cut rather than the line, which must keep its end. */
#define VALUE_MOST 4096
#define LINE_MOST  MIB(1)

static void put_words(Buf *buf, Span text)
{
    char cut[VALUE_MOST + 3];

    if (text.len > VALUE_MOST) {
        memcpy(cut, text.at, VALUE_MOST);
        memcpy(cut + VALUE_MOST, "...", 3);
        text = span_of(cut, sizeof(cut));
    }
    if (line_format == LOG_FORMAT_JSON || needs_quotes(text))
        buf_put_json(buf, text);
    else
        buf_put_span(buf, text);
}

void log_put_value(Buf *buf, const LogField *field, void (*words)(Buf *buf, Span text))
{
    char text[64];

    switch (field->kind) {
    case LOG_STR:
        words(buf, span_str(field->value.str ? field->value.str : ""));
        break;
    case LOG_SPAN:
        words(buf, field->value.span);
        break;
    case LOG_U64:
        buf_printf(buf, "%" PRIu64, field->value.u64);
        break;
    case LOG_I64:
        buf_printf(buf, "%" PRId64, field->value.i64);
        break;
    case LOG_MS:
        buf_printf(buf, "%.3f", field->value.ms);
        break;
    case LOG_BOOL:
        buf_puts(buf, field->value.u64 ? "true" : "false");
        break;
    case LOG_LSN:
        snprintf(text, sizeof(text), "%X/%X", (unsigned)(field->value.u64 >> 32),
                 (unsigned)field->value.u64);
        words(buf, span_str(text));
        break;
    case LOG_END:
    default:
        break;
    }
}

static void put_field(Buf *buf, const LogField *field)
{
    if (line_format == LOG_FORMAT_JSON) {
        buf_putc(buf, ',');
        buf_put_json(buf, span_str(field->name));
        buf_putc(buf, ':');
    } else {
        buf_putc(buf, ' ');
        buf_puts(buf, field->name);
        buf_putc(buf, '=');
    }
    log_put_value(buf, field, put_words);
}

static void put_text_head(Buf *buf, LogLevel level, const char *event)
{
    time_t now = (time_t)(wall_us() / 1000000);
    struct tm parts;
    char clock[16];

    localtime_r(&now, &parts);
    strftime(clock, sizeof(clock), "%H:%M:%S", &parts);
    buf_printf(buf, "%s %s%-5s%s %s", clock, is_terminal ? level_colours[level] : "",
               level_names[level], is_terminal ? "\x1b[0m" : "", event);
}

static void put_head(Buf *buf, LogLevel level, const char *event)
{
    char when[WALL_TEXT];

    wall_text(wall_us(), when);
    if (line_format == LOG_FORMAT_TEXT) {
        put_text_head(buf, level, event);
    } else if (line_format == LOG_FORMAT_JSON) {
        buf_printf(buf, "{\"time\":\"%s\",\"level\":\"%s\",\"event\":", when, level_names[level]);
        buf_put_json(buf, span_str(event));
    } else {
        buf_printf(buf, "time=%s level=%s event=", when, level_names[level]);
        put_words(buf, span_str(event));
    }
}

/* One write per line, so that lines of several processes on one stderr stay whole. */
static void write_all(const uint8_t *at, size_t len)
{
    while (len) {
        ssize_t done = write(STDERR_FILENO, at, len);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return; /* nobody is left to tell */
        at += done;
        len -= (size_t)done;
    }
}

void log_event(LogLevel level, const char *event, const LogField *fields)
{
    AUTO_BUF buf;

    buf_init(&buf, LINE_MOST);
    if (is_terminal)
        buf_puts(&buf, "\r\x1b[K");
    put_head(&buf, level, event);
    if (thread_name)
        put_field(&buf, &F_STR("thread", thread_name));
    for (; fields->kind != LOG_END; fields++)
        put_field(&buf, fields);
    buf_puts(&buf, line_format == LOG_FORMAT_JSON ? "}\n" : "\n");
    pthread_mutex_lock(&line_lock);
    progress_shown = false;
    write_all(buf.at, buf.len);
    pthread_mutex_unlock(&line_lock);
}

void log_err(LogLevel level, const char *event, const Err *err)
{
    if (!log_enabled(level))
        return;
    log_event(level, event,
              (const LogField[]){F_STR("kind", err_kind_name(err->kind)),
                                 F_STR("code", err->code),
                                 F_STR("error", err->text),
                                 F_STR("hint", err->hint),
                                 {.kind = LOG_END}});
}

void log_progress(const char *line)
{
    AUTO_BUF buf;

    buf_init(&buf, 1024);
    if (!is_terminal || line_format != LOG_FORMAT_TEXT)
        return;
    buf_puts(&buf, "\r\x1b[K");
    if (line)
        buf_printf(&buf, "%.400s", line);
    pthread_mutex_lock(&line_lock);
    if (line || progress_shown)
        write_all(buf.at, buf.len);
    progress_shown = line != NULL;
    pthread_mutex_unlock(&line_lock);
}
