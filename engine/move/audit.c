#include "engine/move/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/buf.h"
#include "engine/base/mono.h"
#include "engine/move/sha256.h"

#define ENTRY_MOST (1u << 20)
#define NO_ENTRY   "0000000000000000000000000000000000000000000000000000000000000000"

struct Audit {
    int fd;
    uint64_t entries;
    char head[SHA256_TEXT];
    char path[4200];
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static bool read_file(int fd, const char *path, Buf *out, Err *err)
{
    for (;;) {
        uint8_t *at = buf_reserve(out, 65536);
        ssize_t got;

        if (!at)
            return buf_ok(out, path, err);
        got = read(fd, at, 65536);
        if (got < 0)
            return err_errno(err, ERR_SYSTEM, "reading %s", path);
        if (got == 0)
            return true;
        out->len += (size_t)got;
    }
}

/* Every line must end with ,"prev":"<hash of the line before>"}. Walks whole lines and gives the
 * length of the good part; what is behind the last newline is a torn entry, and no business of the
 * chain. */
static bool walk(Span all, const char *path, char head[SHA256_TEXT], uint64_t *entries,
                 size_t *good, Err *err)
{
    char tail[96];

    snprintf(head, SHA256_TEXT, "%s", NO_ENTRY);
    *entries = 0;
    *good = 0;
    while (*good < all.len) {
        const uint8_t *start = all.at + *good;
        const uint8_t *end = memchr(start, '\n', all.len - *good);
        Span line;
        int len;

        if (!end)
            return true;
        line = span_of(start, (size_t)(end - start));
        len = snprintf(tail, sizeof(tail), ",\"prev\":\"%s\"}", head);
        if (line.len < (size_t)len || memcmp(end - len, tail, (size_t)len) != 0) {
            err_fail(err, ERR_STATE, "%s: entry %" PRIu64 " doesn't follow from the one before",
                     path, *entries + 1);
            return err_hint(
                err,
                "the audit log was changed after it was written; keep it as evidence and go on with "
                "another --state-dir");
        }
        sha256_text(line, head);
        *entries += 1;
        *good += line.len + 1;
    }
    return true;
}

static bool open_file(Audit *audit, size_t *torn, Err *err)
{
    struct stat st;
    AUTO_BUF all;
    size_t good;

    buf_init(&all, (size_t)1 << 30);
    audit->fd = open(audit->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (audit->fd < 0)
        return err_errno(err, ERR_SYSTEM, "opening %s", audit->path);
    if (fstat(audit->fd, &st) != 0)
        return err_errno(err, ERR_SYSTEM, "looking at %s", audit->path);
    if (!read_file(audit->fd, audit->path, &all, err) ||
        !walk(buf_span(&all), audit->path, audit->head, &audit->entries, &good, err))
        return false;
    *torn = all.len - good;
    if (*torn && ftruncate(audit->fd, (off_t)good) != 0)
        return err_errno(err, ERR_SYSTEM, "cutting the torn entry off %s", audit->path);
    return true;
}

Audit *audit_open(const char *dir, Err *err)
{
    Audit *audit = calloc(1, sizeof(*audit));
    size_t torn = 0;

    if (!audit)
        abort();
    audit->fd = -1;
    snprintf(audit->path, sizeof(audit->path), "%s/audit.jsonl", dir);
    if (open_file(audit, &torn, err) &&
        (!torn || audit_add(audit, err, "torn entry cut off after a kill", F_U64("bytes", torn))))
        return audit;
    audit_close(audit);
    return NULL;
}

void audit_close(Audit *audit)
{
    if (!audit)
        return;
    close_fd(&audit->fd);
    free(audit);
}

const char *audit_head(const Audit *audit)
{
    return audit->head;
}

/* Never cut, unlike a line of the log. */
static void put_field(Buf *buf, const LogField *field)
{
    buf_putc(buf, ',');
    buf_put_json(buf, span_str(field->name));
    buf_putc(buf, ':');
    log_put_value(buf, field, buf_put_json);
}

static bool write_all(int fd, Span bytes, const char *path, Err *err)
{
    while (bytes.len) {
        ssize_t done = write(fd, bytes.at, bytes.len);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_errno(err, ERR_SYSTEM, "writing %s", path);
        bytes = span_of(bytes.at + done, bytes.len - (size_t)done);
    }
    return fdatasync(fd) == 0 || err_errno(err, ERR_SYSTEM, "flushing %s", path);
}

bool audit_event(Audit *audit, Err *err, const char *event, const LogField *fields)
{
    char when[WALL_TEXT];
    AUTO_BUF buf;

    buf_init(&buf, ENTRY_MOST);
    buf_printf(&buf, "{\"entry\":%" PRIu64 ",\"time\":\"%s\",\"event\":", audit->entries + 1,
               wall_text(wall_us(), when));
    buf_put_json(&buf, span_str(event));
    for (; fields->kind != LOG_END; fields++)
        put_field(&buf, fields);
    buf_printf(&buf, ",\"prev\":\"%s\"}", audit->head);
    if (!buf_ok(&buf, "an audit entry", err))
        return false;
    sha256_text(buf_span(&buf), audit->head);
    audit->entries++;
    buf_putc(&buf, '\n');
    return write_all(audit->fd, buf_span(&buf), audit->path, err);
}

bool audit_verify(const char *dir, uint64_t *entries, Err *err)
{
    char path[4200];
    char head[SHA256_TEXT];
    int fd ON_EXIT(close_fd) = -1;
    AUTO_BUF all;
    size_t good;

    buf_init(&all, (size_t)1 << 30);
    snprintf(path, sizeof(path), "%s/audit.jsonl", dir);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, ERR_STATE, "opening %s", path);
    if (!read_file(fd, path, &all, err) || !walk(buf_span(&all), path, head, entries, &good, err))
        return false;
    if (good != all.len)
        return err_fail(err, ERR_STATE, "%s: the last entry is torn", path);
    return true;
}
