/* The hash of a row, computed by the server.
 *
 * Every column goes in as the bytes of its type's send function, which is exact to the bit: -0, a
 * NaN's payload, the scale of a numeric, trailing blanks. The bytes stand in a bytea[], where NULL
 * is not '' and nothing runs into its neighbour. hash_array_extended hashes each element to 64 bits
 * and adds them up with powers of 31. That alone would be linear, so that values swapped between
 * two rows would cancel in the sum over rows; the result is therefore hashed once more, with two
 * seeds, before it is added up. (hashint8extended can't do that: it folds its argument to 32 bits.)
 * The sums are numeric on the server, exact, and kept modulo 2^64 here. Measured on a million rows
 * of ten columns: 0.70 s; record_send 1.04 s, the row's text 1.27 s, its md5 2.2 s. */
#include "engine/check/verify_impl.h"

void column_put_bytes(Buf *sql, const TableColumn *column, bool portable)
{
    bool as_text = portable && column->carries_oids;

    buf_puts(sql, as_text ? "textsend(format('%L',t." : column->open);
    if (!as_text)
        buf_puts(sql, "t.");
    pg_put_name(sql, column->name);
    buf_puts(sql, as_text ? "))" : column->close);
}

void hash_put_columns(Buf *sql, const Table *table, bool portable)
{
    buf_puts(sql, "array[");
    for (uint32_t i = 0; i < table->column_count; i++) {
        if (i)
            buf_putc(sql, ',');
        column_put_bytes(sql, &table->columns[i], portable);
    }
    buf_puts(sql, "]::bytea[]");
}

void hash_put_key(Buf *sql, const Table *table, bool portable)
{
    buf_puts(sql, "hash_array_extended(array[");
    for (uint32_t i = 0; i < table->key_count; i++) {
        if (i)
            buf_putc(sql, ',');
        column_put_bytes(sql, &table->columns[table->key[i]], portable);
    }
    buf_puts(sql, "]::bytea[],0)");
}

void hash_put_row_array(Buf *sql, const Table *table, bool portable)
{
    buf_puts(sql, "array[int8send(hash_array_extended(");
    hash_put_columns(sql, table, portable);
    buf_puts(sql, ",0))]");
}

void hash_put_from(Buf *sql, const Table *table)
{
    buf_puts(sql, " from only ");
    pg_put_table(sql, table->schema, table->name);
    buf_puts(sql, " t");
}

/* The low 64 bits of an exact decimal. */
static uint64_t low_bits(const char *text)
{
    bool negative = *text == '-';
    uint64_t value = 0;

    for (text += negative; *text >= '0' && *text <= '9'; text++)
        value = value * 10 + (uint64_t)(*text - '0');
    return negative ? 0 - value : value;
}

void row_sum_add(RowSum *sum, const PGresult *res, int row, int column)
{
    sum->rows += strtoull(PQgetvalue(res, row, column), NULL, 10);
    sum->sum[0] += low_bits(PQgetvalue(res, row, column + 1));
    sum->sum[1] += low_bits(PQgetvalue(res, row, column + 2));
}
