/* The reader under any sequence of calls: pairs of bytes (what to read, how much) until 0xFF, then
 * the bytes to read. */
#include "engine/base/reader.h"

#include "tests/fuzz/fuzz.h"

static unsigned sum;

static void look(Span bytes)
{
    for (size_t i = 0; i < bytes.len; i++)
        sum += bytes.at[i];
}

static void step(Reader *r, uint8_t what, uint8_t size)
{
    size_t left = reader_left(r), claimed;
    Reader sub;

    switch (what % 11) {
    case 0:
        sum += reader_u8(r, "a");
        break;
    case 1:
        sum += reader_u16be(r, "b");
        break;
    case 2:
        sum += reader_u32be(r, "c");
        break;
    case 3:
        sum += (unsigned)reader_u64be(r, "d");
        break;
    case 4:
        sum += reader_u16le(r, "e") + reader_u32le(r, "f") + (unsigned)reader_u64le(r, "g");
        break;
    case 5:
        look(reader_span(r, size, "h"));
        break;
    case 6:
        look(reader_str(r, "i"));
        break;
    case 7:
        claimed = reader_u32be(r, "j");
        claimed = reader_count(r, claimed, size, "j");
        FUZZ_CLAIM(claimed * (size ? size : 1) <= reader_left(r));
        break;
    case 8:
        sub = reader_sub(r, size, "k");
        look(reader_str(&sub, "l"));
        look(reader_span(&sub, reader_left(&sub), "m"));
        FUZZ_CLAIM(reader_left(&sub) == 0);
        break;
    case 9:
        look(reader_span(r, SIZE_MAX - size, "n"));
        FUZZ_CLAIM(r->broken);
        break;
    default:
        if (size == 0)
            reader_break(r, "o", "is broken on purpose");
        break;
    }
    FUZZ_CLAIM(reader_left(r) <= left);
    FUZZ_CLAIM(r->start <= r->at && r->at <= r->end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t ops = 0;
    uint8_t *block;
    bool finished;
    Reader r;
    Err err = ERR_INIT;

    while (ops + 1 < size && data[ops] != 0xFF)
        ops += 2;
    ops = size_min(ops + 1, size);
    block = fuzz_exact(span_of(data + ops, size - ops));
    r = reader_of(span_of(block ? block : (const uint8_t *)"", size - ops));
    for (size_t i = 0; i + 1 < ops && data[i] != 0xFF; i += 2)
        step(&r, data[i], data[i + 1]);
    finished = reader_finish(&r, "message", &err);
    FUZZ_CLAIM(finished == (!r.broken && r.at == r.end));
    FUZZ_CLAIM(finished == (err.kind == ERR_NONE));
    free(block);
    return 0;
}
