import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.List;

/** Ask what tools on the JVM ask first: which views there are, their columns, and what is said of them. */
class Metadata {
  public static void main(String[] given) throws SQLException {
    try (Connection session = DriverManager.getConnection(given[0], given[1], given[2])) {
      DatabaseMetaData metadata = session.getMetaData();
      List<String> views = new ArrayList<>();
      int silent = 0;
      int columns = 0;
      try (ResultSet tables = metadata.getTables(null, "flywheel_bi", "%", new String[] {"VIEW"})) {
        while (tables.next()) {
          views.add(tables.getString("TABLE_NAME"));
          silent += silent(tables, tables.getString("TABLE_NAME"));
        }
      }
      for (String view : views) {
        try (ResultSet found = metadata.getColumns(null, "flywheel_bi", view.replace("_", "\\_"), "%")) {
          while (found.next()) {
            columns++;
            silent += silent(found, view + "." + found.getString("COLUMN_NAME"));
          }
        }
      }
      System.out.printf("%d views, %d columns, %d without remarks%n", views.size(), columns, silent);
      try (ResultSet rows = session.createStatement().executeQuery("select time, pass_rate from flywheel_bi.quality_by_day")) {
        rows.next();
        System.out.printf("%s %.3f%n", rows.getTimestamp(1), rows.getDouble(2));
      }
      System.exit(silent == 0 && views.size() > 50 && columns > 500 ? 0 : 1);
    }
  }

  private static int silent(ResultSet row, String name) throws SQLException {
    String remarks = row.getString("REMARKS");
    if (remarks != null && !remarks.isBlank()) {
      return 0;
    }
    System.out.println(name + " has no remarks");
    return 1;
  }
}
