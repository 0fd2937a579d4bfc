"""One job under several strategies, side by side: `headway compare`."""
