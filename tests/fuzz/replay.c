/* Stands in for libFuzzer in builds without it: runs every file given, so that `make check` of any build replays a corpus. */
#include "engine/base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    FILE *in = fopen(path, "rb");
    Buf bytes;
    size_t got;

    if (!in) {
        perror(path);
        return 1;
    }
    buf_init(&bytes, MIB(64));
    for (;;) {
        uint8_t *room = buf_reserve(&bytes, 65536);

        got = room ? fread(room, 1, 65536, in) : 0;
        bytes.len += got;
        if (got == 0)
            break;
    }
    fclose(in);
    {
        /* Of exact size, so that a read behind the end is seen. */
        uint8_t *exact = malloc(size_max(bytes.len, 1));

        if (bytes.len)
            memcpy(exact, bytes.at, bytes.len);
        LLVMFuzzerTestOneInput(exact, bytes.len);
        free(exact);
    }
    buf_fini(&bytes);
    return 0;
}

int main(int argc, char **argv)
{
    int failed = 0;

    for (int i = 1; i < argc; i++)
        failed += replay(argv[i]);
    printf("%d files replayed\n", argc - 1 - failed);
    return failed != 0;
}
