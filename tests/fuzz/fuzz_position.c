/* LSNs and binlog positions: what parses prints as something that parses to the same. */
#include "engine/model/binlogpos.h"

#include "tests/fuzz/fuzz.h"

static void try_lsn(Span text)
{
    char out[LSN_TEXT];
    uint64_t lsn, again;
    Err err = ERR_INIT;

    if (!lsn_parse(text, &lsn, &err)) {
        FUZZ_CLAIM(err.kind == ERR_USAGE);
        return;
    }
    FUZZ_CLAIM(lsn_parse(span_str(lsn_text(lsn, out)), &again, &err));
    FUZZ_CLAIM(again == lsn);
}

static void try_binlog(Span text)
{
    AUTO_BUF out;
    BinlogPos pos, again;
    Err err = ERR_INIT;
    int order = 1;

    buf_init(&out, 1024);
    if (!binlog_pos_parse(text, &pos, &err)) {
        FUZZ_CLAIM(err.kind == ERR_USAGE);
        return;
    }
    FUZZ_CLAIM(pos.at.file > 0 && pos.at.at >= BINLOG_FIRST_OFFSET);
    FUZZ_CLAIM(pos.base.len > 0 && pos.base.len <= BINLOG_BASE_MOST);
    binlog_pos_put(&pos, &out);
    FUZZ_CLAIM(binlog_pos_parse(buf_span(&out), &again, &err));
    FUZZ_CLAIM(binlog_pos_compare(&pos, &again, &order, &err) && order == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *block = fuzz_exact(span_of(data, size));

    try_lsn(span_of(block, size));
    try_binlog(span_of(block, size));
    free(block);
    return 0;
}
