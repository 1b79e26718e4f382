#include "engine/base/err.h"

#include <errno.h>

static const struct {
    const char *name;
    int exit_code;
} kinds[ERR_KINDS] = {
    [ERR_NONE] = {"none", 0},         [ERR_USAGE] = {"usage", 2},
    [ERR_CONFIG] = {"config", 2},     [ERR_DIFFERENT] = {"different", 1},
    [ERR_TIMEOUT] = {"timeout", 3},   [ERR_SOURCE] = {"source", 4},
    [ERR_TARGET] = {"target", 5},     [ERR_AWS] = {"aws", 6},
    [ERR_PROTOCOL] = {"protocol", 7}, [ERR_FAITHFUL] = {"faithful", 7},
    [ERR_STATE] = {"state", 7},       [ERR_SYSTEM] = {"system", 71},
    [ERR_STOPPED] = {"stopped", 130}, [ERR_BUG] = {"bug", 70},
};

/* vsnprintf that shows the cut with "..." instead of hiding it. */
PRINTF_LIKE(3, 0) static void put_text(char *at, size_t size, const char *fmt, va_list args)
{
    int want = vsnprintf(at, size, fmt, args);

    if (want >= 0 && (size_t)want >= size)
        memcpy(at + size - 4, "...", 4);
}

bool err_fail_at(Err *err, ErrKind kind, const char *file, int line, const char *fmt, ...)
{
    char text[sizeof(err->text)]; /* the old text may be among the arguments */
    va_list args;

    va_start(args, fmt);
    put_text(text, sizeof(text), fmt, args);
    va_end(args);
    err->kind = kind;
    err->transient = false;
    err->code[0] = '\0';
    err->hint[0] = '\0';
    err->file = file;
    err->line = line;
    memcpy(err->text, text, sizeof(text));
    return false;
}

bool err_errno_at(Err *err, ErrKind kind, const char *file, int line, const char *fmt, ...)
{
    int number = errno;
    const char *name = strerrorname_np(number);
    char what[768];
    char why[128];
    va_list args;

    va_start(args, fmt);
    put_text(what, sizeof(what), fmt, args);
    va_end(args);
    err_fail_at(err, kind, file, line, "%s: %s", what, strerror_r(number, why, sizeof(why)));
    return err_code(err, name ? name : "");
}

bool err_context(Err *err, const char *fmt, ...)
{
    char whole[sizeof(err->text)];
    va_list args;
    int len;

    va_start(args, fmt);
    len = vsnprintf(whole, sizeof(whole), fmt, args);
    va_end(args);
    if (len < 0 || (size_t)len >= sizeof(whole) - 2)
        return false; /* the cause matters more than a context that would push it out */
    len += snprintf(whole + len, sizeof(whole) - (size_t)len, ": %s", err->text);
    if ((size_t)len >= sizeof(whole))
        memcpy(whole + sizeof(whole) - 4, "...", 4);
    memcpy(err->text, whole, sizeof(whole));
    return false;
}

bool err_hint(Err *err, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    put_text(err->hint, sizeof(err->hint), fmt, args);
    va_end(args);
    return false;
}

bool err_code(Err *err, const char *code)
{
    snprintf(err->code, sizeof(err->code), "%s", code);
    return false;
}

bool err_transient(Err *err)
{
    err->transient = true;
    return false;
}

void err_clear(Err *err)
{
    *err = ERR_INIT;
}

const char *err_kind_name(ErrKind kind)
{
    return kinds[kind].name;
}

int err_exit_code(ErrKind kind)
{
    return kinds[kind].exit_code;
}
