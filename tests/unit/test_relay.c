/* The relay log: what was appended is read back, whatever happens to the end of its files; what was
 * lost is seen. */
#include "tests/unit/kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/stream/relay.h"
#include "engine/stream/relay_track.h"

#define SLOT 100 /* bytes of WAL of one transaction here */

static char folder[64];

static RelayConf conf_of(uint64_t most)
{
    return (RelayConf){.dir = folder, .system = "77", .slot = "s", .database = "d", .most = most};
}

static const RelayFormat format = {.encoding = "UTF8", .protocol = 2, .binary = true};

static void must(bool done, const Err *err)
{
    if (!done)
        fail_msg("%s", err->text);
}

static void say(Relay *relay, const char *words)
{
    Err err = ERR_INIT;

    while (*words) {
        AUTO_BUF message;

        buf_init(&message, KIB(64));
        words = kit_put_words(&message, words);
        must(relay_message(relay, buf_span(&message), &err), &err);
    }
}

/* Transaction n: a row of `bytes`, committed at n * SLOT. */
static void say_txn(Relay *relay, unsigned n, size_t bytes)
{
    char *row = malloc(bytes + 1), words[200];
    uint64_t dice = n;
    Err err = ERR_INIT;
    AUTO_BUF message;

    for (size_t i = 0; i < bytes; i++) { /* nothing for zstd */
        dice = dice * 6364136223846793005u + 1442695040888963407u;
        row[i] = (char)(dice >> 56 | 1);
    }
    row[bytes] = '\0';
    snprintf(words, sizeof(words), "B q:%u q:0 d:%u;R d:9 s:public s:t b:0x64 w:0", n * SLOT, n);
    say(relay, words);
    buf_init(&message, SIZE_MAX / 4);
    buf_puts(&message, "I");
    buf_puts(&message, row);
    must(relay_message(relay, buf_span(&message), &err), &err);
    snprintf(words, sizeof(words), "C b:0 q:%u q:%u q:0", n * SLOT, n * SLOT + SLOT);
    say(relay, words);
    free(row);
}

static Position at(unsigned n)
{
    return position_of_lsn((uint64_t)n * SLOT);
}

static Relay *made(uint64_t most)
{
    Err err = ERR_INIT;
    RelayConf conf = conf_of(most);
    Relay *relay = relay_create(&conf, &format, at(1), &err);

    must(relay != NULL, &err);
    must(relay_start(relay, &err), &err);
    relay_connected(relay);
    return relay;
}

static Relay *loaded(uint64_t most)
{
    Err err = ERR_INIT;
    RelayConf conf = conf_of(most);
    Relay *relay;

    must(relay_load(&conf, &relay, &err), &err);
    return relay;
}

static void emptied(void)
{
    Err err = ERR_INIT;

    must(relay_remove(folder, &err), &err);
}

static void synced(Relay *relay, Position end)
{
    uint64_t began = mono_ms();

    relay_flush(relay, true);
    while (position_compare(relay_synced_end(relay), end) < 0) {
        Err err = ERR_INIT;

        must(relay_works(relay, &err), &err);
        assert_true(mono_ms() - began < 20000);
        usleep(1000);
    }
}

/* Commits in what is read from now on, up to the last one. Each must be whole, and they are
 * consecutive. */
static unsigned read_commits(RelayReader *reader, unsigned first)
{
    Err err = ERR_INIT;
    RelayRecord record;
    unsigned next = first, parts = 0;

    for (;;) {
        must(relay_reader_next(reader, &record, &err), &err);
        if (record.kind == RELAY_NONE)
            break;
        if (record.kind == RELAY_CONNECTED)
            parts = 0;
        if (record.kind != RELAY_MESSAGE)
            continue;
        if (record.message.at[0] == 'B')
            parts = 0;
        parts++;
        if (record.message.at[0] == 'C') {
            Reader r = reader_of(record.message);

            (void)reader_span(&r, 2, "type and flags");
            assert_int_equal(reader_u64be(&r, "commit"), next * SLOT);
            assert_int_equal(parts, 4);
            next++;
        }
    }
    return next;
}

static unsigned commits_of(Relay *relay, unsigned first)
{
    RelayReader *reader = relay_reader_new(relay, POSITION_NONE);
    unsigned next = read_commits(reader, first);

    relay_reader_free(reader);
    return next;
}

static void what_was_appended_is_read(void **state)
{
    Relay *relay = made(0);
    RelayReader *reader = relay_reader_new(relay, POSITION_NONE);
    unsigned next = 1;

    (void)state;
    for (unsigned n = 1; n <= 300; n++) {
        say_txn(relay, n, n * 10 % 5000);
        if (n % 50 == 0) {
            synced(relay, at(n + 1));
            next = read_commits(reader, next);
            assert_int_equal(next, n + 1);
        }
    }
    relay_reader_free(reader);
    relay_close(relay);
    relay = loaded(0);
    assert_int_equal(relay_end(relay).at, 301 * SLOT);
    assert_int_equal(relay_begin(relay).at, SLOT);
    assert_string_equal(relay_format(relay).encoding, "UTF8");
    assert_true(relay_format(relay).binary);
    assert_int_equal(commits_of(relay, 1), 301);
    relay_close(relay);
    emptied();
}

static void nothing_is_synced_before_it_is_flushed(void **state)
{
    Relay *relay = made(0);

    (void)state;
    say_txn(relay, 1, 10);
    usleep(50000);
    assert_int_equal(relay_synced_end(relay).at, SLOT);
    relay_flush(relay, false);
    usleep(50000);
    assert_int_equal(relay_synced_end(relay).at, SLOT);
    synced(relay, at(2));
    say(relay, "B q:200 q:0 d:2;R d:9 s:public s:t b:0x64 w:0;I");
    relay_flush(relay, true);
    usleep(50000);
    assert_int_equal(relay_synced_end(relay).at,
                     2 * SLOT); /* without its commit it isn't complete */
    relay_close(relay);
    relay = loaded(0);
    assert_int_equal(relay_end(relay).at, 2 * SLOT);
    relay_close(relay);
    emptied();
}

static void goes_on_after_a_restart(void **state)
{
    (void)state;
    relay_close(made(0));
    for (unsigned run = 0; run < 5; run++) {
        Relay *relay = loaded(0);
        Err err = ERR_INIT;

        assert_non_null(relay);
        assert_int_equal(relay_end(relay).at, (run * 10 + 1) * SLOT);
        must(relay_start(relay, &err), &err);
        relay_connected(relay);
        for (unsigned n = run * 10 + 1; n <= run * 10 + 10; n++)
            say_txn(relay, n, 1000);
        say(relay,
            "S d:77 b:1;E;B q:999999 q:0 d:5"); /* never committed: the source sends them again */
        relay_close(relay);
    }
    {
        Relay *relay = loaded(0);

        assert_string_equal(relay_broken(relay), "");
        assert_int_equal(commits_of(relay, 1), 51);
        relay_close(relay);
    }
    emptied();
}

/* Files */

static void path_of(unsigned segment, char out[128])
{
    snprintf(out, 128, "%s/%08u.kbr", folder, segment);
}

static Span slurp(unsigned segment)
{
    char path[128];
    struct stat stat;
    uint8_t *bytes;
    int fd;

    path_of(segment, path);
    fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &stat) == 0);
    bytes = malloc((size_t)stat.st_size);
    assert_int_equal(read(fd, bytes, (size_t)stat.st_size), stat.st_size);
    close(fd);
    return span_of(bytes, (size_t)stat.st_size);
}

static void spill(unsigned segment, Span bytes)
{
    char path[128];
    int fd;

    path_of(segment, path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes.at, bytes.len), (ssize_t)bytes.len);
    close(fd);
}

static unsigned files(void)
{
    DIR *dir = opendir(folder);
    unsigned count = 0;

    if (!dir)
        return 0;
    while (readdir(dir)) /* NOLINT(concurrency-mt-unsafe) */
        count++;
    closedir(dir);
    return count - 2;
}

/* Segment 1 with five blocks of one transaction each. */
static Span five(void)
{
    Relay *relay = made(0);
    Span bytes;

    for (unsigned n = 1; n <= 5; n++) {
        say_txn(relay, n, 40);
        synced(relay, at(n + 1));
    }
    relay_close(relay);
    bytes = slurp(1);
    return bytes;
}

static void trap_160_torn_at_every_byte(void **state)
{
    Span whole = five();
    unsigned before = 0;

    (void)state;
    for (size_t len = 0; len <= whole.len; len++) {
        Relay *relay;
        unsigned next = 1;

        spill(1, span_of(whole.at, len));
        relay = loaded(0);
        if (relay) {
            next = commits_of(relay, 1);
            assert_int_equal(relay_end(relay).at, next * SLOT);
            relay_close(relay);
            relay = loaded(0); /* what was cut off is gone, the rest is the same */
            assert_non_null(relay);
            assert_int_equal(relay_end(relay).at, next * SLOT);
        }
        assert_true(next >= before + (before == 0));
        before = next;
        relay_close(relay);
        if (!relay)
            assert_int_equal(files(), 0);
    }
    assert_int_equal(before, 6);
    free((void *)(uintptr_t)whole.at);
    emptied();
}

/* Whatever byte is turned over: what is read are whole transactions, in order, from the first. */
static void trap_160_damage_at_every_byte(void **state)
{
    Span whole = five();
    uint8_t *copy = malloc(whole.len);

    (void)state;
    for (size_t i = 0; i < whole.len; i++) {
        Relay *relay;

        memcpy(copy, whole.at, whole.len);
        copy[i] ^= 0x40;
        spill(1, span_of(copy, whole.len));
        relay = loaded(0);
        if (relay) {
            unsigned next = commits_of(relay, 1);

            assert_true(next < 6);
            assert_int_equal(relay_end(relay).at, next * SLOT);
        }
        relay_close(relay);
    }
    free(copy);
    free((void *)(uintptr_t)whole.at);
    emptied();
}

/* Segments 1 to 4 or more. */
static unsigned many_segments(unsigned txns)
{
    Relay *relay = made(MIB(2)); /* a segment is 256 KiB */

    for (unsigned n = 1; n <= txns; n++) {
        say_txn(relay, n, 20000);
        synced(relay, at(n + 1));
    }
    relay_close(relay);
    return files();
}

static void a_hole_is_seen(void **state)
{
    Relay *relay;
    char path[128];

    (void)state;
    assert_true(many_segments(60) >= 4);
    path_of(2, path);
    assert_int_equal(unlink(path), 0);
    relay = loaded(MIB(2));
    assert_string_equal(relay_broken(relay), "segment 2 is missing");
    assert_true(relay_begin(relay).at > 20 * SLOT);
    assert_int_equal(relay_end(relay).at, 61 * SLOT);
    assert_int_equal(commits_of(relay, (unsigned)(relay_begin(relay).at / SLOT)), 61);
    relay_close(relay);
    emptied();
}

static void damage_in_the_middle_is_seen(void **state)
{
    Relay *relay;
    Span bytes;
    Err err = ERR_INIT;

    (void)state;
    assert_true(many_segments(60) >= 4);
    bytes = slurp(2);
    ((uint8_t *)(uintptr_t)bytes.at)[bytes.len / 2] ^= 1;
    spill(2, bytes);
    relay = loaded(MIB(2));
    assert_non_null(strstr(relay_broken(relay), "segment 2 is damaged at byte"));
    assert_int_equal(commits_of(relay, (unsigned)(relay_begin(relay).at / SLOT)), 61);
    assert_true(relay_begin(relay).at > 20 * SLOT);
    must(relay_tidy(relay, &err), &err); /* what can't be used goes */
    relay_close(relay);
    relay = loaded(MIB(2));
    assert_string_equal(relay_broken(relay), "");
    relay_close(relay);
    free((void *)(uintptr_t)bytes.at);
    emptied();
}

/* A middle segment that lost whole blocks at its end is as bad. */
static void a_short_middle_is_seen(void **state)
{
    Relay *relay;
    Span bytes;
    size_t at_byte = 0, cut = 0;

    (void)state;
    assert_true(many_segments(60) >= 4);
    bytes = slurp(2);
    while (at_byte < bytes.len) {
        uint32_t packed;

        cut = at_byte;
        memcpy(&packed, bytes.at + at_byte + 4, 4);
        at_byte += RELAY_BLOCK_HEAD + packed;
    }
    spill(2, span_of(bytes.at, cut));
    relay = loaded(MIB(2));
    assert_string_equal(relay_broken(relay), "segment 3 doesn't follow on 2");
    relay_close(relay);
    free((void *)(uintptr_t)bytes.at);
    emptied();
}

static void another_source_is_refused(void **state)
{
    RelayConf others[] = {conf_of(0), conf_of(0), conf_of(0)};

    (void)state;
    others[0].system = "78";
    others[1].slot = "other";
    others[2].database = "other";
    relay_close(made(0));
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        Err err = ERR_INIT;
        Relay *relay;

        assert_false(relay_load(&others[i], &relay, &err));
        assert_int_equal(err.kind, ERR_FAITHFUL);
        assert_null(relay);
    }
    emptied();
}

/* Forgetting */

static void forgets_what_is_durable(void **state)
{
    Relay *relay = made(MIB(2));
    RelayReader *reader = relay_reader_new(relay, POSITION_NONE);
    uint64_t before;

    (void)state;
    for (unsigned n = 1; n <= 60; n++)
        say_txn(relay, n, 20000);
    synced(relay, at(61));
    before = relay_status(relay).segments;
    assert_true(before >= 4);
    relay_forget(relay, at(61));
    assert_int_equal(relay_status(relay).segments, before); /* not read yet */
    assert_int_equal(read_commits(reader, 1), 61);
    relay_forget(relay, at(1));
    assert_int_equal(relay_status(relay).segments, before); /* not durable */
    relay_forget(relay, at(61));
    assert_true(relay_status(relay).segments <= 2);
    assert_int_equal(files(), relay_status(relay).segments);
    relay_reader_free(reader);
    relay_close(relay);
    relay = loaded(MIB(2));
    assert_string_equal(relay_broken(relay), "");
    assert_int_equal(commits_of(relay, (unsigned)(relay_begin(relay).at / SLOT)), 61);
    relay_close(relay);
    emptied();
}

/* A streamed transaction keeps the segment in which it began until it is durable; another, durable
 * one whose beginning is gone isn't read in part. */
static void parts_of_transactions(void **state)
{
    Relay *relay = made(MIB(2));
    RelayReader *reader = relay_reader_new(relay, POSITION_NONE);
    RelayRecord record;
    Err err = ERR_INIT;
    unsigned n = 1;

    (void)state;
    say(relay, "S d:1000 b:1;R d:1000 d:5 s:public s:s b:0x64 w:0;I d:1000;E");
    while (relay_status(relay).segments < 2)
        say_txn(relay, n++, 20000);
    say(relay, "S d:2000 b:1;I d:2000;E;S d:1000 b:0;I d:1000;E");
    while (relay_status(relay).segments < 4)
        say_txn(relay, n++, 20000);
    synced(relay, at(n));
    n = read_commits(reader, 1);
    relay_forget(relay, at(n));
    assert_int_equal(relay_begin(relay).at, SLOT); /* 1000 is open, and it began in the first */
    {
        char words[80];

        snprintf(words, sizeof(words), "c d:1000 b:0 q:%u q:%u q:0", n * SLOT, (n + 1) * SLOT);
        say(relay, words);
    }
    synced(relay, at(n + 1));
    relay_forget(relay, at(n));
    assert_int_equal(relay_begin(relay).at, SLOT); /* it isn't durable */
    relay_forget(relay, at(n + 1));
    assert_true(relay_begin(relay).at > SLOT);
    assert_int_equal(relay_status(relay).segments, 3); /* 2000 is open */
    relay_reader_free(reader);
    /* Now 1000's end has no beginning. */
    reader = relay_reader_new(relay, at(n));
    for (unsigned streams = 0, relations = 0;;) {
        must(relay_reader_next(reader, &record, &err), &err);
        if (record.kind == RELAY_NONE) {
            assert_int_equal(streams, 1);
            assert_int_equal(relations, 1);
            break;
        }
        relations += record.kind == RELAY_RELATION;
        if (record.kind == RELAY_MESSAGE) {
            assert_int_not_equal(record.message.at[0], 'c');
            streams += record.message.at[0] == 'S';
        }
    }
    relay_reader_free(reader);
    /* A target without it was set back. */
    reader = relay_reader_new(relay, at(n - 1));
    do {
        if (!relay_reader_next(reader, &record, &err))
            break;
    } while (record.kind != RELAY_NONE);
    assert_int_equal(err.kind, ERR_FAITHFUL);
    relay_reader_free(reader);
    relay_close(relay);
    emptied();
}

static void the_limit_holds(void **state)
{
    Relay *relay = made(MIB(2));
    RelayReader *reader = relay_reader_new(relay, POSITION_NONE);
    uint64_t began = mono_ms();
    unsigned n = 1, next;

    (void)state;
    while (!relay_status(relay).full) {
        assert_true(mono_ms() - began < 30000);
        if (!relay_has_room(relay)) {
            usleep(1000);
            continue;
        }
        say_txn(relay, n++, 20000);
        relay_flush(relay, true);
    }
    assert_true(relay_status(relay).bytes <= MIB(2));
    next = read_commits(reader, 1);
    assert_true(next > 20);
    relay_forget(relay, at(next)); /* room again: what waited is written */
    synced(relay, at(n));
    assert_int_equal(read_commits(reader, next), n);
    relay_reader_free(reader);
    relay_close(relay);
    emptied();
}

/* What has no room when the log ends is read from memory. */
static void what_was_not_written_is_read_too(void **state)
{
    Relay *relay = made(MIB(2));
    RelayReader *reader = relay_reader_new(relay, POSITION_NONE);
    unsigned n = 1, next;

    (void)state;
    while (!relay_status(relay).full || relay_has_room(relay)) {
        if (relay_has_room(relay)) {
            say_txn(relay, n++, 20000);
            relay_flush(relay, true);
        } else {
            usleep(1000);
        }
    }
    say_txn(relay, n++, 10);
    next = read_commits(reader, 1);
    assert_true(next < n);
    relay_stop(relay, false);
    assert_int_equal(read_commits(reader, next), n);
    assert_true(relay_reader_is_done(reader));
    relay_reader_free(reader);
    relay_close(relay);
    relay = loaded(MIB(2));
    assert_int_equal(relay_end(relay).at, next * SLOT);
    relay_close(relay);
    emptied();
}

static void only_the_owner_may_read(void **state)
{
    struct stat stat_of;
    char path[128];

    (void)state;
    relay_close(made(0));
    assert_int_equal(stat(folder, &stat_of), 0);
    assert_int_equal(stat_of.st_mode & 07777, 0700);
    path_of(1, path);
    assert_int_equal(stat(path, &stat_of), 0);
    assert_int_equal(stat_of.st_mode & 07777, 0600);
    emptied();
}

static void quiet_moves_the_end(void **state)
{
    Relay *relay = made(0);

    (void)state;
    say_txn(relay, 1, 10);
    relay_quiet(relay, at(5));
    relay_quiet(relay, at(3));
    assert_int_equal(relay_end(relay).at, 5 * SLOT);
    say(relay, "B q:600 q:0 d:2");
    relay_quiet(relay, at(6)); /* within a transaction it says nothing */
    assert_int_equal(relay_end(relay).at, 5 * SLOT);
    relay_close(relay);
    relay = loaded(0);
    assert_int_equal(relay_end(relay).at, 5 * SLOT);
    relay_close(relay);
    emptied();
}

static void nothing_behind_an_unresolved_prepare(void **state)
{
    Relay *relay = made(0);

    (void)state;
    say_txn(relay, 1, 10);
    say(relay, "b q:200 q:300 q:0 d:50 s:gid;I;P b:0 q:200 q:300 q:0 d:50 s:gid");
    say_txn(relay, 3, 10);
    relay_quiet(relay, at(5));
    assert_int_equal(relay_end(relay).at, 2 * SLOT);
    say(relay, "K b:0 q:500 q:600 q:0 d:50 s:gid");
    assert_int_equal(relay_end(relay).at, 6 * SLOT);
    relay_close(relay);
    emptied();
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/keybridge-relay.XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    memcpy(folder + strlen(folder), "/log", 5);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    *strrchr(folder, '/') = '\0';
    return rmdir(folder); /* fails unless it is empty */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_appended_is_read),
        cmocka_unit_test(nothing_is_synced_before_it_is_flushed),
        cmocka_unit_test(goes_on_after_a_restart),
        cmocka_unit_test(trap_160_torn_at_every_byte),
        cmocka_unit_test(trap_160_damage_at_every_byte),
        cmocka_unit_test(a_hole_is_seen),
        cmocka_unit_test(damage_in_the_middle_is_seen),
        cmocka_unit_test(a_short_middle_is_seen),
        cmocka_unit_test(another_source_is_refused),
        cmocka_unit_test(forgets_what_is_durable),
        cmocka_unit_test(parts_of_transactions),
        cmocka_unit_test(the_limit_holds),
        cmocka_unit_test(what_was_not_written_is_read_too),
        cmocka_unit_test(only_the_owner_may_read),
        cmocka_unit_test(quiet_moves_the_end),
        cmocka_unit_test(nothing_behind_an_unresolved_prepare),
    };

    log_setup(LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT);
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
