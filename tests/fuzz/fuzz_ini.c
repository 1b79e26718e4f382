/* The ini reader on arbitrary bytes: every entry must be whole, and what was read must survive
 * being written and read again. */
#include "engine/conf/conf.h"
#include "engine/conf/ini.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool on_entry(void *self, const IniEntry *entry, Err *err)
{
    Buf *out = self;

    (void)err;
    if (!*entry->section || !*entry->key || !entry->line)
        abort();
    buf_printf(out, "[%s]\n%s = \"", entry->section, entry->key);
    for (const char *at = entry->value; *at; at++) {
        if (*at == '"' || *at == '\\')
            buf_putc(out, '\\');
        if (*at == '\n')
            buf_puts(out, "\\n");
        else
            buf_putc(out, *at);
    }
    buf_puts(out, "\"\n");
    return true;
}

static bool read_again(Span text, Buf *out)
{
    FILE *in = fmemopen((void *)(uintptr_t)text.at, text.len, "r");
    Err err = ERR_INIT;
    bool done = ini_read(in, "again", on_entry, out, &err);

    fclose(in);
    return done;
}

static void read_as_conf(const uint8_t *data, size_t size)
{
    char path[] = "/tmp/fuzz_ini.XXXXXX";
    int fd = mkstemp(path);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    Conf conf;
    Err err = ERR_INIT;

    if (!out)
        abort();
    fwrite(data, 1, size, out);
    fclose(out);
    conf_init(&conf);
    if (!conf_read_file(&conf, path, &err) && err.kind != ERR_CONFIG)
        abort();
    conf_fini(&conf);
    remove(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Buf first;
    Buf second;
    FILE *in;
    Err err = ERR_INIT;

    if (size == 0)
        return 0;
    buf_init(&first, MIB(16));
    buf_init(&second, MIB(16));
    in = fmemopen((void *)(uintptr_t)data, size, "r");
    if (!in)
        abort();
    if (ini_read(in, "fuzz", on_entry, &first, &err) && first.len) {
        if (!read_again(buf_span(&first), &second) || first.len != second.len ||
            memcmp(first.at, second.at, first.len) != 0)
            abort();
    }
    fclose(in);
    if (data[0] == '[')
        read_as_conf(data, size);
    buf_fini(&first);
    buf_fini(&second);
    return 0;
}
