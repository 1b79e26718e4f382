/* Messages in words (kit.h) go in; batches come out as text:
 *
 *   [7@10 +1 +2] [8@20 -1]        two batches of one transaction; 7 committed at 0x10 and inserted
 * rows 1 and 2 [9@30 big 3: +1 +2 +3]        its changes come from a reader [7@10 +1]/2 formed
 * again for two lanes
 */
#include "tests/unit/kit.h"

#include <errno.h>
#include <unistd.h>

#include "engine/stream/assembler.h"

#define FOLDER "/tmp/keybridge-assembler-test"

#define REL                   "R d:1 s:public s:t d w:1 b:1 s:a d:23 d:0xffffffff;"
#define REL2                  "R d:1 s:public s:t d w:2 b:1 s:a d:23 d:0xffffffff b:0 s:b d:25 d:0xffffffff;"
#define BEGIN(xid, at)        "B q:" #at " q:0 d:" #xid ";"
#define COMMIT(at, end)       "C b:0 q:" #at " q:" #end " q:0;"
#define INSERT(v)             "I d:1 N w:1 t r:" #v ";"
#define DELETE(v)             "D d:1 K w:1 t r:" #v ";"
#define START(xid, first)     "S d:" #xid " b:" #first ";"
#define STOP                  "E;"
#define SREL(xid)             "R d:" #xid " d:1 s:public s:t d w:1 b:1 s:a d:23 d:0xffffffff;"
#define SINSERT(xid, v)       "I d:" #xid " d:1 N w:1 t r:" #v ";"
#define SCOMMIT(xid, at, end) "c d:" #xid " b:0 q:" #at " q:" #end " q:0;"
#define SABORT(xid, sub)      "A d:" #xid " d:" #sub ";"

#define PBEGIN(xid, at, end)    "b q:" #at " q:" #end " q:0 d:" #xid " s:gid" #xid ";"
#define PREPARE(xid, at, end)   "P b:0 q:" #at " q:" #end " q:0 d:" #xid " s:gid" #xid ";"
#define SPREPARE(xid, at, end)  "p b:0 q:" #at " q:" #end " q:0 d:" #xid " s:gid" #xid ";"
#define PCOMMIT(xid, at, end)   "K b:0 q:" #at " q:" #end " q:0 d:" #xid " s:gid" #xid ";"
#define PROLLBACK(xid, at, end) "r b:0 q:" #at " q:" #end " q:0 q:0 d:" #xid " s:gid" #xid ";"

typedef struct World {
    SpoolDir *dir;
    Assembler *a;
    Buf out;
    Err err;
} World;

static const AssemblerConf usual = {
    .protocol = 3, .batch_changes = 100, .batch_bytes = MIB(1), .txn_memory = MIB(1)};

static World world_new(AssemblerConf conf)
{
    World w = {.err = ERR_INIT};

    w.dir = spool_dir_open(FOLDER, KIB(64), &w.err);
    assert_non_null(w.dir);
    w.a = assembler_new(&conf, w.dir);
    buf_init(&w.out, MIB(1));
    return w;
}

static void world_free(World *w)
{
    assembler_free(w->a);
    spool_dir_close(w->dir);
    assert_true(rmdir(FOLDER) == 0 || errno == ENOENT); /* empty, or gone with another world */
    buf_fini(&w->out);
}

static bool feed(World *w, const char *words)
{
    bool ok = true;

    while (ok && *words) {
        AUTO_BUF message;
        uint8_t *exact;

        buf_init(&message, MIB(1));
        words = kit_put_words(&message, words);
        exact = kit_exact(buf_span(&message));
        ok = assembler_message(w->a, span_of(exact, message.len), &w->err);
        free(exact); /* nothing may point at it any more */
    }
    return ok;
}

static void put_change(Buf *out, const Change *change)
{
    const Value *row = change->new ? change->new : change->old;

    switch (change->kind) {
    case CHANGE_INSERT:
    case CHANGE_UPDATE:
    case CHANGE_DELETE:
        buf_printf(out, " %c%.*s", "+*-"[change->kind], (int)row -> len, (const char *)row -> at);
        break;
    case CHANGE_TRUNCATE:
        buf_puts(out, " truncate");
        break;
    case CHANGE_MESSAGE:
        buf_printf(out, " '%.*s'", SPAN_FMT(change->content));
        break;
    }
}

static void put_big(World *w, const Txn *txn)
{
    Arena arena;
    Change *change;

    arena_init(&arena, 256);
    buf_printf(&w->out, " big %zu:", txn->change_count);
    for (int turn = 0; turn < 2; turn++) { /* a replay reads it again */
        size_t len = w->out.len;

        assert_true(txn->big->ops->rewind(txn->big, &w->err));
        for (;;) {
            arena_reset(&arena);
            if (!txn->big->ops->next(txn->big, &arena, &change, &w->err))
                fail_msg("%s", w->err.text);
            if (!change)
                break;
            put_change(&w->out, change);
        }
        if (turn == 0)
            w->out.len = len;
    }
    arena_fini(&arena);
}

static void take_all(World *w)
{
    Batch *batch;

    while ((batch = assembler_take(w->a, true))) {
        buf_puts(&w->out, w->out.len ? " [" : "[");
        for (const Txn *txn = batch->first; txn; txn = txn->next) {
            buf_printf(&w->out, "%s%u@%" PRIX64, txn == batch->first ? "" : " ", txn->xid,
                       txn->commit.at);
            for (const Change *change = txn->first; change; change = change->next)
                put_change(&w->out, change);
            if (txn->big)
                put_big(w, txn);
        }
        buf_putc(&w->out, ']');
        if (batch->lanes_before)
            buf_printf(&w->out, "/%u", batch->lanes_before);
        batch_free(batch);
    }
}

typedef struct Case {
    const char *name;
    const char *in;
    const char *out; /* batches, or the error */
    size_t batch_changes;
    size_t txn_memory;
} Case;

static const Case cases[] = {
    {"commits join",
     BEGIN(7, 16) REL INSERT(1) COMMIT(16, 24) BEGIN(8, 32) DELETE(1) COMMIT(32, 40),
     "[7@10 +1 8@20 -1]", 0, 0},
    {"a full batch closes",
     BEGIN(7, 16) REL INSERT(1) COMMIT(16, 24) BEGIN(8, 32) INSERT(2) INSERT(3) COMMIT(32, 40)
         BEGIN(9, 48) INSERT(4) COMMIT(48, 56),
     "[7@10 +1 8@20 +2 +3] [9@30 +4]", 2, 0},
    {"open ones stay", BEGIN(7, 16) REL INSERT(1) COMMIT(16, 24) BEGIN(8, 32) INSERT(2), "", 0, 0},
    {"empty and message",
     BEGIN(7, 16) COMMIT(16, 24) BEGIN(8, 32) "M b:1 q:1 s:p r:hello;" COMMIT(32, 40),
     "[7@10 8@20 'hello']", 0, 0},
    {"outside message", "M b:0 q:1 s:p r:hello;", "", 0, 0},
    {"big",
     BEGIN(7, 16) REL INSERT(1) COMMIT(16, 24) BEGIN(8, 32) INSERT(2) INSERT(3) DELETE(2)
         COMMIT(32, 40) BEGIN(9, 48) INSERT(4) COMMIT(48, 56),
     "[7@10 +1] [8@20 big 3: +2 +3 -2] [9@30 +4]", 0, 400},
    {"big that describes",
     BEGIN(8, 32) REL INSERT(2) INSERT(3) REL2 "I d:1 N w:2 t r:4 n;"
                                               "T d:1 b:0 d:1;" REL INSERT(5) COMMIT(32, 40),
     "[8@20 big 5: +2 +3 +4 truncate +5]", 0, 300},
    {"streamed",
     START(7, 1) SREL(7) SINSERT(7, 1) STOP BEGIN(8, 16) REL INSERT(2) COMMIT(16, 24) START(7, 0)
         SINSERT(7, 3) STOP SCOMMIT(7, 32, 40),
     "[8@10 +2 7@20 +1 +3]", 0, 0},
    {"streamed teaches",
     START(7, 1) SREL(7) SINSERT(7, 1) STOP SCOMMIT(7, 32, 40) BEGIN(8, 48) INSERT(2)
         COMMIT(48, 56),
     "[7@20 +1 8@30 +2]", 0, 0},
    {"streamed and big teaches",
     START(7, 1) SREL(7) SINSERT(7, 1) SINSERT(7, 2) SINSERT(7, 3) STOP SCOMMIT(7, 32, 40)
         BEGIN(8, 48) INSERT(4) COMMIT(48, 56),
     "[7@20 big 3: +1 +2 +3] [8@30 +4]", 0, 400},
    {"part rolled back",
     START(7, 1) SREL(8) SINSERT(7, 1) SINSERT(8, 2) SINSERT(9, 3) STOP SABORT(7, 8) START(7, 0)
         SINSERT(7, 4) STOP SCOMMIT(7, 32, 40),
     "[7@20 +1 +3 +4]", 0, 0},
    {"part of a big one rolled back",
     START(7, 1) SREL(8) SINSERT(7, 1) SINSERT(8, 2) SINSERT(9, 3) STOP SABORT(7, 8) START(7, 0)
         SINSERT(7, 4) STOP SCOMMIT(7, 32, 40),
     "[7@20 big 3: +1 +3 +4]", 0, 400},
    {"what is rolled back makes nothing big",
     START(7, 1) SREL(7) SINSERT(7, 1) SINSERT(8, 2) SINSERT(8, 3) STOP SABORT(7, 8)
         SCOMMIT(7, 32, 40),
     "[7@20 +1]", 0, 400},
    {"whole rolled back",
     START(7, 1) SREL(7) SINSERT(7, 1) STOP SABORT(7, 7) BEGIN(8, 48) REL INSERT(4) COMMIT(48, 56),
     "[8@30 +4]", 0, 0},
    {"trap 172: stray aborts",
     SABORT(5, 5) SABORT(5, 6) START(7, 1) SREL(7) SINSERT(7, 1) STOP SABORT(7, 99)
         SCOMMIT(7, 32, 40),
     "[7@20 +1]", 0, 0},
    {"unknown commit", SCOMMIT(7, 32, 40),
     "the source commits transaction 7, which it never streamed", 0, 0},
    {"unknown part", START(7, 0),
     "the source goes on with an unknown part of the streamed transaction 7", 0, 0},
    {"begun twice", START(7, 1) STOP START(7, 1),
     "the source begins for the second time the streamed transaction 7", 0, 0},
    {"xid 0", START(7, 1) SREL(7) SINSERT(0, 1),
     "message 'I' in a stream block names transaction 0", 0, 0},
    {"prepared goes where it is committed",
     PBEGIN(7, 8, 12) REL INSERT(1) INSERT(2) PREPARE(7, 8, 12) BEGIN(8, 16) INSERT(3)
         COMMIT(16, 24) PCOMMIT(7, 32, 40) BEGIN(9, 48) INSERT(4) COMMIT(48, 56),
     "[8@10 +3] [7@20 big 2: +1 +2] [9@30 +4]", 0, 0},
    {"prepared between the changes of nobody",
     BEGIN(8, 8) REL INSERT(3) COMMIT(8, 16) PBEGIN(7, 24, 28) INSERT(1) PREPARE(7, 24, 28)
         BEGIN(9, 32) INSERT(4) COMMIT(32, 40),
     "[8@8 +3 9@20 +4]", 0, 0},
    {"prepared and rolled back",
     PBEGIN(7, 8, 12) REL INSERT(1) PREPARE(7, 8, 12) PROLLBACK(7, 12, 20) BEGIN(8, 32) INSERT(3)
         COMMIT(32, 40),
     "[8@20 +3]", 0, 0},
    {"rolled back, prepared before the start",
     PROLLBACK(7, 12, 20) BEGIN(8, 32) REL INSERT(3) COMMIT(32, 40), "[8@20 +3]", 0, 0},
    {"committed, prepared before the start", PCOMMIT(7, 32, 40),
     "the source commits prepared transaction 'gid7', whose PREPARE is before the start", 0, 0},
    {"prepared, nothing changed", PBEGIN(7, 8, 12) PREPARE(7, 8, 12) PCOMMIT(7, 32, 40),
     "[7@20 big 0:]", 0, 0},
    {"prepared keeps its table's shape",
     PBEGIN(7, 8, 12) REL INSERT(1) PREPARE(7, 8, 12) BEGIN(8, 16) REL2
     "I d:1 N w:2 t r:3 n;" COMMIT(16, 24) PCOMMIT(7, 32, 40)
         BEGIN(9, 48) "I d:1 N w:2 t r:4 n;" COMMIT(48, 56),
     "[8@10 +3] [7@20 big 1: +1] [9@30 +4]", 0, 0},
    {"streamed, then prepared",
     START(7, 1) SREL(7) SINSERT(7, 1) SINSERT(8, 2) STOP SABORT(7, 8) START(7, 0) SINSERT(7, 4)
         STOP SPREPARE(7, 8, 12) BEGIN(9, 16) INSERT(3) COMMIT(16, 24) PCOMMIT(7, 32, 40),
     "[9@10 +3] [7@20 big 2: +1 +4]", 0, 0},
    {"prepared, never streamed", SPREPARE(7, 8, 12),
     "the source prepares transaction 7, which it never streamed", 0, 0},
    {"prepared twice", PBEGIN(7, 8, 12) PREPARE(7, 8, 12) PBEGIN(7, 16, 20),
     "the source prepares transaction 7 for the second time", 0, 0},
    {"the same gid again",
     PBEGIN(7, 8, 12) REL INSERT(1) PREPARE(7, 8, 12) PCOMMIT(7, 16, 24) PBEGIN(7, 32, 36) INSERT(2)
         PREPARE(7, 32, 36) PCOMMIT(7, 40, 48),
     "[7@10 big 1: +1] [7@28 big 1: +2]", 0, 0},
    {"backwards", BEGIN(7, 32) COMMIT(32, 40) BEGIN(8, 16) COMMIT(16, 24),
     "the source sends the commit at 0/10 after the one at 0/20", 0, 0},
};

static void run_case(const Case *c)
{
    AssemblerConf conf = usual;
    World w;

    if (c->batch_changes)
        conf.batch_changes = c->batch_changes;
    if (c->txn_memory)
        conf.txn_memory = c->txn_memory;
    w = world_new(conf);
    if (feed(&w, c->in)) {
        take_all(&w);
        if (strcmp(buf_str(&w.out), c->out) != 0)
            fail_msg("%s: \"%s\" instead of \"%s\"", c->name, buf_str(&w.out), c->out);
    } else if (!strstr(w.err.text, c->out)) {
        fail_msg("%s: \"%s\" instead of \"%s\"", c->name, w.err.text, c->out);
    }
    world_free(&w);
}

static void all_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        run_case(&cases[i]);
}

#define FOUR                                                                                  \
    BEGIN(7, 16)                                                                              \
    REL INSERT(1) COMMIT(16, 24) BEGIN(8, 32) INSERT(2) COMMIT(32, 40) BEGIN(9, 48) INSERT(3) \
        COMMIT(48, 56) BEGIN(10, 64) INSERT(4) COMMIT(64, 72)

static void expect(AssemblerConf conf, const char *in, const char *out)
{
    World w = world_new(conf);

    if (!feed(&w, in))
        fail_msg("%s", w.err.text);
    take_all(&w);
    assert_string_equal(buf_str(&w.out), out);
    world_free(&w);
}

static void skips_what_the_target_has(void **state)
{
    AssemblerConf conf = usual;

    (void)state;
    conf.progress = (ApplyProgress){.any = true, .applied = {0, 32}, .applied_end = {0, 40}};
    expect(conf, FOUR, "[9@30 +3 10@40 +4]");
    conf.progress = (ApplyProgress){0};
    conf.start.at = 33;
    expect(conf, FOUR, "[9@30 +3 10@40 +4]");
    conf.start.at = 32;
    expect(conf, FOUR, "[8@20 +2 9@30 +3 10@40 +4]");
    expect(conf,
           START(7, 1) SREL(7) SINSERT(7, 1) STOP SCOMMIT(7, 16, 24) BEGIN(8, 48) INSERT(4)
               COMMIT(48, 56),
           "[8@30 +4]");
}

static void forms_a_batch_again(void **state)
{
    AssemblerConf conf = usual;

    (void)state;
    conf.batch_changes = 1;
    conf.txn_memory = 1;
    conf.progress = (ApplyProgress){.any = true,
                                    .applied = {0, 16},
                                    .applied_end = {0, 24},
                                    .partial = true,
                                    .first = {0, 32},
                                    .last = {0, 48},
                                    .lanes = 3};
    expect(conf, FOUR, "[8@20 +2 9@30 +3]/3 [10@40 big 1: +4]");
    conf.progress.last.at = 32;
    conf.txn_memory = MIB(1);
    expect(conf, FOUR, "[8@20 +2]/3 [9@30 +3] [10@40 +4]");
    conf.txn_memory = 1;
    expect(conf, FOUR, "[8@20 big 1: +2]/3 [9@30 big 1: +3] [10@40 big 1: +4]");
}

static void refuses_another_batch(void **state)
{
    AssemblerConf conf = usual;
    World w;

    (void)state;
    conf.progress = (ApplyProgress){
        .any = true, .partial = true, .first = {0, 24}, .last = {0, 56}, .lanes = 2};
    w = world_new(conf);
    assert_false(feed(&w, FOUR));
    assert_int_equal(w.err.kind, ERR_FAITHFUL);
    assert_string_equal(
        w.err.text,
        "pgoutput decoder: the half-applied batch from 0/18 to 0/38 can't be formed again: "
        "the source sends the commit at 0/10");
    world_free(&w);
    conf.progress.first.at = 16;
    w = world_new(conf);
    assert_false(feed(&w, FOUR));
    assert_non_null(strstr(w.err.text, "the source sends the commit at 0/40"));
    world_free(&w);
}

static void a_batch_that_is_formed_again_waits_for_its_last(void **state)
{
    AssemblerConf conf = usual;
    World w;

    (void)state;
    conf.progress = (ApplyProgress){
        .any = true, .partial = true, .first = {0, 16}, .last = {0, 48}, .lanes = 2};
    w = world_new(conf);
    assert_true(feed(&w, BEGIN(7, 16) REL INSERT(1) COMMIT(16, 24)));
    assert_null(assembler_take(w.a, true));
    assert_false(assembler_quiet(w.a, position_of_lsn(100)));
    world_free(&w);
}

static void quiet_positions(void **state)
{
    AssemblerConf conf = usual;
    World w = world_new(conf);

    (void)state;
    assert_true(feed(&w, BEGIN(7, 16) REL INSERT(1)));
    assert_false(assembler_quiet(w.a, position_of_lsn(16)));
    assert_true(feed(&w, COMMIT(16, 24)));
    assert_false(assembler_quiet(w.a, position_of_lsn(32))); /* something waits */
    take_all(&w);
    assert_true(assembler_quiet(w.a, position_of_lsn(32)));
    take_all(&w);
    assert_false(assembler_quiet(w.a, position_of_lsn(32))); /* known */
    assert_true(feed(&w, BEGIN(8, 32) INSERT(2)
                             COMMIT(32, 40))); /* a commit at that very byte isn't lost */
    take_all(&w);
    assert_string_equal(buf_str(&w.out), "[7@10 +1] [0@1F] [8@20 +2]");
    assert_int_equal(assembler_seen(w.a).at, 40);
    world_free(&w);
}

static void a_quiet_position_is_formed_again(void **state)
{
    AssemblerConf conf = usual;

    (void)state;
    conf.progress = (ApplyProgress){.any = true,
                                    .applied = {0, 16},
                                    .applied_end = {0, 24},
                                    .partial = true,
                                    .first = {0, 31},
                                    .last = {0, 31},
                                    .lanes = 2};
    expect(conf, FOUR, "[0@1F]/2 [8@20 +2 9@30 +3 10@40 +4]");
}

static void an_open_transaction_can_be_dropped(void **state)
{
    World w = world_new(usual);

    (void)state;
    assert_true(feed(&w, FOUR BEGIN(11, 80) INSERT(5)));
    assert_null(assembler_take(w.a, true));
    assert_int_equal(assembler_seen(w.a).at, 80);
    assembler_drop_open(w.a);
    take_all(&w);
    assert_string_equal(buf_str(&w.out), "[7@10 +1 8@20 +2 9@30 +3 10@40 +4]");
    world_free(&w);
}

/* Whether it is streamed or not must not decide whether it is big. */
static void streamed_or_not_is_big_alike(void **state)
{
    (void)state;
    for (size_t memory = 100; memory < 1000; memory++) {
        AssemblerConf conf = usual;
        World plain, streamed;
        bool big[2];

        conf.txn_memory = memory;
        plain = world_new(conf);
        streamed = world_new(conf);
        assert_true(feed(&plain, BEGIN(7, 16) REL INSERT(1) INSERT(22) DELETE(1) COMMIT(16, 24)));
        assert_true(feed(&streamed, START(7, 1) SREL(7) SINSERT(7, 1)
                                        SINSERT(8, 22) "D d:7 d:1 K w:1 t r:1;" SINSERT(9, 5)
                                            STOP SABORT(7, 9) SCOMMIT(7, 16, 24)));
        take_all(&plain);
        take_all(&streamed);
        big[0] = strstr(buf_str(&plain.out), "big");
        big[1] = strstr(buf_str(&streamed.out), "big");
        assert_int_equal(big[0], big[1]);
        assert_string_equal(buf_str(&plain.out), buf_str(&streamed.out));
        world_free(&plain);
        world_free(&streamed);
    }
}

/* What the source may forget: nothing of what a restart would need. */
static void a_prepared_one_holds_the_source_back(void **state)
{
    World w = world_new(usual);

    (void)state;
    assert_true(feed(&w, PBEGIN(7, 8, 12) REL INSERT(1) PREPARE(7, 8, 12) PBEGIN(8, 16, 20)
                             INSERT(2) PREPARE(8, 16, 20)));
    assert_int_equal(assembler_prepared(w.a), 2);
    assert_int_equal(assembler_confirmable(w.a, position_of_lsn(4), POSITION_NONE).at, 4);
    assert_int_equal(assembler_confirmable(w.a, position_of_lsn(20), POSITION_NONE).at, 8);
    assert_true(assembler_is_empty(w.a)); /* they needn't be waited for */
    assert_true(feed(&w, PCOMMIT(7, 32, 40)));
    assert_int_equal(assembler_prepared(w.a), 1);
    assert_int_equal(assembler_confirmable(w.a, position_of_lsn(32), POSITION_NONE).at,
                     8); /* isn't durable */
    assert_int_equal(assembler_confirmable(w.a, position_of_lsn(40), POSITION_NONE).at, 16);
    assert_true(feed(&w, PROLLBACK(8, 20, 48)));
    assert_int_equal(assembler_confirmable(w.a, position_of_lsn(48), POSITION_NONE).at, 48);
    world_free(&w);
}

/* What the target has of before isn't confirmed while a PREPARE of before may still come. */
static void what_was_not_sent_again_is_not_confirmed(void **state)
{
    AssemblerConf conf = usual;
    World w;

    (void)state;
    conf.progress = (ApplyProgress){.any = true, .applied = {0, 32}, .applied_end = {0, 40}};
    w = world_new(conf);
    assert_int_equal(assembler_confirmable(w.a, position_of_lsn(40), POSITION_NONE).at, 40);
    world_free(&w);
    conf.two_phase = true;
    w = world_new(conf);
    assert_int_equal(assembler_confirmable(w.a, position_of_lsn(40), POSITION_NONE).at, 0);
    assert_int_equal(assembler_confirmable(w.a, position_of_lsn(40), position_of_lsn(8)).at, 8);
    assert_true(feed(&w, BEGIN(6, 8) COMMIT(8, 12) PBEGIN(7, 16, 20) PREPARE(7, 16, 20)));
    assert_int_equal(assembler_confirmable(w.a, position_of_lsn(40), POSITION_NONE).at, 16);
    world_free(&w);
}

static void a_restart_gets_it_again(void **state)
{
    AssemblerConf conf = usual;

    (void)state;
    conf.progress = (ApplyProgress){.any = true, .applied = {0, 32}, .applied_end = {0, 40}};
    conf.start.at = 40;
    expect(conf,
           PBEGIN(7, 8, 12) REL INSERT(1) PREPARE(7, 8, 12) PBEGIN(8, 16, 20) INSERT(2)
               PREPARE(8, 16, 20) PCOMMIT(7, 32, 40) PCOMMIT(5, 24, 28) PCOMMIT(8, 48, 56),
           "[8@30 big 1: +2]");
    conf.progress = (ApplyProgress){.any = true,
                                    .applied = {0, 16},
                                    .applied_end = {0, 24},
                                    .partial = true,
                                    .first = {0, 32},
                                    .last = {0, 32},
                                    .lanes = 2};
    conf.start.at = 24;
    expect(conf, PBEGIN(7, 8, 12) REL INSERT(1) PREPARE(7, 8, 12) PCOMMIT(7, 32, 40),
           "[7@20 big 1: +1]/2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_cases),
        cmocka_unit_test(skips_what_the_target_has),
        cmocka_unit_test(forms_a_batch_again),
        cmocka_unit_test(refuses_another_batch),
        cmocka_unit_test(a_batch_that_is_formed_again_waits_for_its_last),
        cmocka_unit_test(quiet_positions),
        cmocka_unit_test(a_quiet_position_is_formed_again),
        cmocka_unit_test(an_open_transaction_can_be_dropped),
        cmocka_unit_test(streamed_or_not_is_big_alike),
        cmocka_unit_test(a_prepared_one_holds_the_source_back),
        cmocka_unit_test(what_was_not_sent_again_is_not_confirmed),
        cmocka_unit_test(a_restart_gets_it_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
