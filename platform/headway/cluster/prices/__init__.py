"""Lists of prices: what machine types cost by the hour, by cloud, shipped with the package and given by users."""
