/* What the capture of DDL says, and SQL texts. The first byte chooses. */
#include "engine/stream/ddl.h"
#include "engine/stream/sqltext.h"

#include "tests/fuzz/fuzz.h"

static void try_text(Span text, bool escapes)
{
    Arena arena ON_EXIT(arena_fini);
    AUTO_BUF out;
    SqlList list;
    bool temporary;

    arena_init(&arena, KIB(4));
    buf_init(&out, MIB(16));
    if (!sql_split(text, escapes, &arena, &list))
        return;
    for (size_t i = 0; i < list.count; i++) {
        Span one = list.at[i];
        SqlList again;

        FUZZ_CLAIM(one.at >= text.at && one.at + one.len <= text.at + text.len && one.len);
        /* What was cut out is one statement, whole. */
        FUZZ_CLAIM(sql_split(one, escapes, &arena, &again) && again.count == 1 &&
                   span_equal(again.at[0], one));
        (void)sql_fits(one, escapes, "CREATE TABLE");
        (void)sql_fits(one, escapes, "SELECT INTO");
        (void)sql_fits(one, escapes, "GRANT");
        (void)sql_control(one, escapes);
        sql_put_plain(one, escapes, &out);
        sql_put_masked(one, escapes, &out);
        sql_put_calls(one, escapes, &out);
        if (!sql_put_empty(one, escapes, &out, &temporary))
            buf_clear(&out);
    }
}

static void try_message(Span content)
{
    DdlState *state = ddl_state_new();
    DdlAction action;
    Err err = ERR_INIT;

    for (int i = 0; i < 2 && ddl_read(state, content, &action, &err); i++) {
        FUZZ_CLAIM(action.verdict != DDL_RUN || action.ddl.text);
        FUZZ_CLAIM(action.verdict != DDL_STOP || action.note);
        FUZZ_CLAIM(action.what && action.statement && action.query);
    }
    ddl_state_free(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *block;

    if (!size)
        return 0;
    block = fuzz_exact(span_of(data + 1, size - 1));
    if (*data % 3 == 2)
        try_message(span_of(block, size - 1));
    else
        try_text(span_of(block, size - 1), *data % 3 == 1);
    free(block);
    return 0;
}
